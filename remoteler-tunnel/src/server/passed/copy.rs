//! Copies what is passed between an agent and an earlier process. Owns when that is over: a link's connection has no half that lives on, so the
//! end of either side is the end of both, in order where it was in order and otherwise as a break. Never looks at what it copies.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::ordered::Ordered;
use crate::relay::Direction;
use crate::stream::BoxedStream;

/// Until either side has ended. The caller drops both at once: that is how each learns of a break.
///
/// # Cancel safety
/// Dropped, it has copied a part; the streams are good for nothing more.
pub(super) async fn copy(agent: &mut BoxedStream, there: &mut Ordered) {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut waiting: Option<Pin<Box<Sleep>>> = None;
    let mut ending = false;
    poll_fn(|cx| {
        if up.poll(cx, agent, there).is_ready() | down.poll(cx, there, agent).is_ready() {
            return Poll::Ready(());
        }
        if !ending && (up.is_ending() || down.is_ending()) {
            ending = true;
            waiting = None;
        }
        if !ending && !down.is_blocked() {
            waiting = None;
            return Poll::Pending;
        }
        let asleep = waiting.get_or_insert_with(|| Box::pin(sleep(MOMENT)));
        while Future::poll(asleep.as_mut(), cx).is_ready() {
            // While the agent takes nothing, nothing is read from there, and its end would not be seen.
            if ending || matches!(there.poll_nothing(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            asleep.as_mut().reset(Instant::now() + MOMENT);
        }
        Poll::Pending
    })
    .await;
}

/// For telling the one that the other has ended.
const MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;
    use tokio_util::io::StreamReader;

    use super::*;

    fn copying(room: usize) -> (DuplexStream, Ordered, JoinHandle<()>) {
        let (agent, near) = duplex(room);
        let (there, far) = duplex(1000);
        let copying = tokio::spawn(async move {
            let mut near: BoxedStream = Box::new(near);
            copy(&mut near, &mut Ordered::new(Box::new(far))).await;
        });
        (agent, Ordered::new(Box::new(there)), copying)
    }

    #[tokio::test]
    async fn the_end_of_either_side_in_order_is_told_to_the_other_and_ends_both() {
        let (mut agent, mut there, copying_it) = copying(1000);
        agent.write_all(b"last words").await.unwrap();
        agent.shutdown().await.unwrap();
        let mut heard = String::new();
        there.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        timeout(SOON, copying_it).await.unwrap().unwrap();

        let (mut agent, mut there, copying_it) = copying(1000);
        there.write_all(b"last words").await.unwrap();
        there.shutdown().await.unwrap();
        let mut heard = String::new();
        agent.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        timeout(SOON, copying_it).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_holds_no_relay_when_the_other_side_is_gone() {
        for in_order in [false, true] {
            let (agent, mut there, copying_it) = copying(10);
            there.write_all(b"more than the agent's side takes, who says nothing either").await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(!copying_it.is_finished(), "slow is not gone");
            if in_order {
                there.shutdown().await.unwrap();
            }
            drop(there);
            timeout(2 * MOMENT, copying_it).await.unwrap().unwrap();
            drop(agent);
        }
    }

    #[tokio::test]
    async fn an_agents_connection_that_breaks_is_broken_there() {
        let half = [Ok(&b"half"[..]), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
        let reader = StreamReader::new(futures::stream::iter(half));
        let (there, far) = duplex(1000);
        let copying_it = tokio::spawn(async move {
            let mut agent: BoxedStream = Box::new(tokio::io::join(reader, tokio::io::sink()));
            copy(&mut agent, &mut Ordered::new(Box::new(far))).await;
        });
        let mut octets = Vec::new();
        let heard = Ordered::new(Box::new(there)).read_to_end(&mut octets).await;
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(octets, b"half");
        timeout(SOON, copying_it).await.unwrap().unwrap();
    }

    const SOON: Duration = Duration::from_secs(60);
}
