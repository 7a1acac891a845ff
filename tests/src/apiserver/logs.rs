//! The log of the one pod: what was written so far, and with `follow` what is written from then on.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::watch;

use super::{Body, asks};

/// Lines so far; a watcher sees each change.
pub(super) struct Logs(Arc<watch::Sender<String>>);

impl Default for Logs {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(String::new())))
    }
}

impl Logs {
    pub(super) fn append(&self, line: &str) {
        self.0.send_modify(|text| {
            text.push_str(line);
            text.push('\n');
        });
    }
}

/// `GET …/pods/<pod>/log`
pub(super) fn serve(logs: &Logs, request: &Request<Incoming>) -> Response<Body> {
    let body = if asks(request, "follow") {
        let frames = stream::unfold((logs.0.subscribe(), 0), |(mut text, at)| async move {
            let news = text.wait_for(|text| text.len() > at).await.ok()?[at..].to_owned();
            let next = at + news.len();
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(news))), (text, next)))
        });
        StreamBody::new(frames).boxed_unsync()
    } else {
        Full::new(Bytes::from(logs.0.borrow().clone())).boxed_unsync()
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
