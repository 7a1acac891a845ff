//! The routes of second factors.

use axum::routing::{get, post};
use http::Method;
use remoteler_core::{FactorRemoval, FreshProof, NewFactor, wire};

use super::{Route, Shape};
use crate::http::body::{Api, Input, done, json};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(
            "The caller's second factors",
            wire::FACTORS,
            Method::GET,
            Shape::Many("Factor"),
            get(async |Api(api): Api| json(api.factors().await)),
        ),
        Route::new(
            "Offers a secret for an authenticator app",
            wire::FACTOR_OFFER,
            Method::POST,
            Shape::One("OfferedTotp"),
            post(async |Api(api): Api, Input(proof): Input<FreshProof>| json(api.offer_factor(proof).await)),
        )
        .takes("FreshProof"),
        Route::new(
            "Takes what was offered as a second factor",
            wire::FACTORS,
            Method::POST,
            Shape::One("FactorAdded"),
            post(async |Api(api): Api, Input(factor): Input<NewFactor>| json(api.add_factor(factor).await)),
        )
        .takes("NewFactor"),
        Route::new(
            "Removes a second factor",
            wire::FACTOR_REMOVE,
            Method::POST,
            Shape::Nothing,
            post(async |Api(api): Api, Input(removal): Input<FactorRemoval>| done(api.remove_factor(removal).await)),
        )
        .takes("FactorRemoval"),
    ]
}
