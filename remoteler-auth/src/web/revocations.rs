//! Revocation lists over HTTP, for servers that fetch them by the clock: no login, conditional requests, caching.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pem::Pem;
use remoteler_core::{ApiError, RevocationList, RevocationListFormat, RevocationListName};

use super::{ApiForAddress, RemoteAddr, from_outside, remembered::Remembered};
use crate::{failure::not_found, http::Failure};

/// How long others may keep it.
const MAX_AGE: &str = "public, max-age=60";

/// The lists that were fetched last.
pub(super) type Fetched = Remembered<RevocationListName, RevocationList>;

/// A list by its name, `user.krl`; with `.pem` behind it an X.509 one in that form, and while an authority is rotated one of each of its keys.
pub(super) async fn show(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Extension(fetched): Extension<Fetched>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    match parse(&file) {
        Some((name, as_pem)) => fetch(&api, addr, &fetched, name, &headers, (&file, as_pem)).await,
        None => nothing("user.krl, host.krl, user.crl, host.crl, user.crl.pem and host.crl.pem"),
    }
}

/// An X.509 list by its name.
pub(super) async fn show_signed(
    State(api): State<ApiForAddress>,
    Extension(RemoteAddr(addr)): Extension<RemoteAddr>,
    Extension(fetched): Extension<Fetched>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    match parse(&file).filter(|(name, _)| name.format == RevocationListFormat::Crl) {
        Some((name, as_pem)) => fetch(&api, addr, &fetched, name, &headers, (&file, as_pem)).await,
        None => nothing("user.crl, host.crl, user.crl.pem and host.crl.pem; OpenSSH's lists are shown over TLS"),
    }
}

/// The list that a file name means, and whether it is wanted as PEM.
fn parse(file: &str) -> Option<(RevocationListName, bool)> {
    let (name, as_pem) = file.strip_suffix(".pem").map_or((file, false), |name| (name, true));
    let name = name.parse::<RevocationListName>().ok()?;
    (!as_pem || name.format == RevocationListFormat::Crl).then_some((name, as_pem))
}

fn nothing(known: &str) -> Response {
    Failure(not_found(format!("there is no such revocation list; there are {known}"))).into_response()
}

async fn fetch(
    api: &ApiForAddress,
    addr: SocketAddr,
    fetched: &Fetched,
    name: RevocationListName,
    headers: &HeaderMap,
    (file, as_pem): (&str, bool),
) -> Response {
    match fetched.get(name, api(addr).revocation_list(name)).await {
        Ok(list) => answer(&list, file, as_pem, headers),
        Err(cause) => failed(cause),
    }
}

pub(super) fn failed(cause: ApiError) -> Response {
    Failure(from_outside(cause)).into_response()
}

fn answer(list: &RevocationList, file: &str, as_pem: bool, request: &HeaderMap) -> Response {
    let tag = format!("\"{file}-{}\"", list.number);
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(list.made.unix_seconds_unsigned());
    let mut headers = HeaderMap::new();
    for (header, value) in [
        (header::ETAG, tag.clone()),
        (header::LAST_MODIFIED, httpdate::fmt_http_date(made)),
        (header::CACHE_CONTROL, MAX_AGE.to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(header, value);
        }
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_known(&tag, list, made, request) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    // RFC 2585 section 4.2 for DER; OpenSSH's form has no type of its own.
    let content_type = match (list.name.format, as_pem) {
        (RevocationListFormat::Krl, _) => "application/octet-stream",
        (RevocationListFormat::Crl, false) => "application/pkix-crl",
        (RevocationListFormat::Crl, true) => "application/x-pem-file",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let body = if as_pem {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let blocks = list.files.iter().map(|der| pem::encode_config(&Pem::new("X509 CRL", der.as_slice()), config));
        blocks.collect::<String>().into_bytes()
    } else {
        list.files.first().cloned().unwrap_or_default()
    };
    (StatusCode::OK, headers, body).into_response()
}

/// RFC 9110 section 13.2.2: with `If-None-Match` the date does not count.
///
/// Without it the date that was told with the list counts, and no other: a reader who sends the time of his last visit may have been shown an
/// older list at that time. It counts only for a list that is the first one of its second, since others were told the same date before
/// (section 8.8.2.2); the number tells, as it grows with each list and is the time otherwise.
fn is_known(tag: &str, list: &RevocationList, made: SystemTime, request: &HeaderMap) -> bool {
    if let Some(tags) = request.get(header::IF_NONE_MATCH) {
        let tags = tags.to_str().unwrap_or_default();
        return tags.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag);
    }
    if list.number != list.made.unix_seconds_unsigned() {
        return false;
    }
    let since = request.get(header::IF_MODIFIED_SINCE).and_then(|since| since.to_str().ok());
    since.and_then(|since| httpdate::parse_http_date(since).ok()) == Some(made)
}
