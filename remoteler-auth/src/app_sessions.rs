//! Sessions with web applications.

use remoteler_core::{
    ApiError, ApiErrorKind, AppCertificateRequest, AppCertified, AppCodeRequest, AppSessionOpened, AppToken,
    AppTokenRequest,
};

use crate::{Caller, failure::ApiResult, service::Inner};

impl Inner {
    pub(crate) async fn redeem_app_code(&self, _: &Caller, _: AppCodeRequest) -> ApiResult<AppSessionOpened> {
        Err(ApiError::new(ApiErrorKind::Unavailable, "not yet"))
    }

    pub(crate) async fn app_certificate(&self, _: &Caller, _: AppCertificateRequest) -> ApiResult<AppCertified> {
        Err(ApiError::new(ApiErrorKind::Unavailable, "not yet"))
    }

    pub(crate) async fn app_token(&self, _: &Caller, _: AppTokenRequest) -> ApiResult<AppToken> {
        Err(ApiError::new(ApiErrorKind::Unavailable, "not yet"))
    }
}
