//! The routes of logins through browsers.

use axum::routing::{get, post};
use http::Method;
use remoteler_core::{BeginLogin, BrowserStep, LoginPoll, RedeemLogin, Resource, wire};

use super::{Route, Shape};
use crate::http::body::{Api, Input, json};

pub(super) fn table() -> Vec<Route> {
    use Shape::One;
    vec![
        Route::new(
            "Ways to log in",
            wire::LOGIN_METHODS,
            Method::GET,
            One("LoginMethods"),
            get(async |Api(api): Api| json(api.login_methods().await)),
        ),
        Route::new(
            "Begins a login that a browser finishes",
            wire::LOGINS,
            Method::POST,
            One("LoginBegun"),
            post(async |Api(api): Api, Input(request): Input<BeginLogin>| json(api.begin_login(request).await)),
        )
        .takes("BeginLogin"),
        Route::new(
            "A step of the browser in a login",
            wire::LOGIN_BROWSER,
            Method::POST,
            One("BrowserAnswer"),
            post(async |Api(api): Api, Input(step): Input<BrowserStep>| json(api.browser_step(step).await)),
        )
        .takes("BrowserStep"),
        Route::new(
            "How far a login is",
            wire::LOGIN_POLL,
            Method::POST,
            One("LoginProgress"),
            post(async |Api(api): Api, Input(poll): Input<LoginPoll>| json(api.poll_login(poll).await)),
        )
        .takes("LoginPoll"),
        Route::new(
            "The certificates of a confirmed login, once",
            wire::LOGIN_REDEEM,
            Method::POST,
            One("SealedCerts"),
            post(async |Api(api): Api, Input(request): Input<RedeemLogin>| json(api.redeem_login(request).await)),
        )
        .takes("RedeemLogin"),
        Route::new(
            "Begins a login that shows what a connector would give",
            wire::CONNECTOR_TEST,
            Method::POST,
            One("LoginBegun"),
            post(async |Api(api): Api, Input(connector): Input<Resource>| json(api.test_connector(connector).await)),
        )
        .takes("Resource"),
    ]
}
