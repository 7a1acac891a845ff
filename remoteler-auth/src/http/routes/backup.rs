//! Routes of backups.

use super::{
    Api, Method, OffsetQuery, Path, Query, Route,
    Shape::{Octets, One},
    get, json, octets, post, wire,
};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(
            "Begins to make a backup; for the administrator of the machine",
            wire::BACKUPS,
            Method::POST,
            One("BackupStatus"),
            post(async |Api(api): Api| json(api.start_backup().await)),
        ),
        Route::new(
            "How far a backup is",
            wire::BACKUP,
            Method::GET,
            One("BackupStatus"),
            get(async |Api(api): Api, Path(id): Path<String>| json(api.backup(id).await)),
        ),
        Route::new(
            "At most 1 MiB of a backup; empty at the end, which ends it",
            wire::BACKUP_CONTENT,
            Method::GET,
            Octets,
            get(async |Api(api): Api, Path(id): Path<String>, Query(at): Query<OffsetQuery>| {
                octets(api.read_backup(id, at.offset).await)
            }),
        )
        .query("OffsetQuery"),
    ]
}
