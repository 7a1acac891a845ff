//! Routes by which services count the connections of users.

use remoteler_core::{LeaseReport, LeaseRequest};

use super::{
    Api, Input, Method, Route,
    Shape::{Nothing, One},
    done, json, post, put, wire,
};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(
            "Counts a connection of a user whose roles limit how many there may be",
            wire::LEASES,
            Method::POST,
            One("LeaseAnswer"),
            post(async |Api(api): Api, Input(request): Input<LeaseRequest>| json(api.take_lease(request).await)),
        )
        .takes("LeaseRequest"),
        Route::new(
            "Which counted connections the calling host holds, and which have ended",
            wire::LEASES,
            Method::PUT,
            Nothing,
            put(async |Api(api): Api, Input(report): Input<LeaseReport>| done(api.report_leases(report).await)),
        )
        .takes("LeaseReport"),
    ]
}
