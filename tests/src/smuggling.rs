//! Requests that two servers could read differently (I61): what stands behind them would be a request of its own for one of the two.

/// `start` is a POST up to its headers, each of which ends its line; `inner` the whole request that is smuggled.
#[must_use]
pub fn smuggled(start: &str, inner: &str) -> Vec<(&'static str, String)> {
    let length = inner.len();
    vec![
        ("two lengths", format!("{start}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{inner}")),
        ("a length with a sign", format!("{start}Content-Length: +0\r\n\r\n{inner}")),
        ("a list of lengths", format!("{start}Content-Length: 0, {length}\r\n\r\n{inner}")),
        ("chunked not last", format!("{start}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}")),
        ("another coding", format!("{start}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}")),
        ("space before colon", format!("{start}Content-Length : 0\r\n\r\n{inner}")),
        ("NUL in a value", format!("{start}X-A: a\0b\r\nContent-Length: 0\r\n\r\n{inner}")),
        ("bare CR", format!("{start}X-A: a\rContent-Length: 5\r\nContent-Length: 0\r\n\r\n{inner}")),
        ("chunk size overflow", format!("{start}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{inner}")),
        ("chunk size with a sign", format!("{start}Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{inner}")),
        ("chunk that goes on", format!("{start}Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n{inner}")),
        (
            "HTTP/1.0 with chunks",
            start.replace("HTTP/1.1", "HTTP/1.0") + &format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
    ]
}
