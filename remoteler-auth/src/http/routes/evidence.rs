//! Routes of the audit log's evidence: checkpoints and exports.

use axum::routing::get;
use http::Method;
use remoteler_core::{
    evidence::{ExportQuery, ExportTileQuery},
    wire,
};

use super::{Route, Shape::One};
use crate::http::body::{Api, Query, json};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(
            "The newest checkpoint of the audit log, signed just now, and the key it is signed with",
            wire::AUDIT_CHECKPOINT,
            Method::GET,
            One("ExportStart"),
            get(async |Api(api): Api| json(api.audit_checkpoint().await)),
        ),
        Route::new(
            "Begins an export of the audit log",
            wire::AUDIT_EXPORT,
            Method::GET,
            One("ExportStart"),
            get(async |Api(api): Api, Query(query): Query<ExportQuery>| json(api.start_export(query).await)),
        )
        .query("ExportQuery"),
        Route::new(
            "Events of a tile of the audit log with what proves them",
            wire::AUDIT_TILE,
            Method::GET,
            One("ExportTile"),
            get(async |Api(api): Api, Query(query): Query<ExportTileQuery>| json(api.export_tile(query).await)),
        )
        .query("ExportTileQuery"),
    ]
}
