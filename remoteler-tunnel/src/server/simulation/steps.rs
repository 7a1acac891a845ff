//! A link is taken up, and the connection breaks at each step of that: within the request and the answer at each octet, between them, and within
//! what goes out again. What counts are the octets that have arrived by then, of the one side or of the other.

use std::collections::VecDeque;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::wire::Wire;
use super::*;

/// Of the client's question for the link: prefix and body.
const REQUEST: usize = 8 + 60;
/// Of the server's answer.
const ANSWER: usize = 8 + 1 + 8 + 32;
/// What each side has said when the connection is lost, in a few frames.
const SAID: usize = 10_000;

/// Connections to a proxy, of which the next ones break after so many octets.
#[derive(Clone)]
struct Breaking {
    table: Arc<Resumable>,
    cuts: Arc<Mutex<VecDeque<[usize; 2]>>>,
    made: Arc<Mutex<u64>>,
}

impl Place for Breaking {
    async fn connect(&self) -> Result<(BoxedStream, Channel), Failure> {
        let (wire, [client, server]) = Wire::new(Duration::from_millis(1));
        if let Some(cut) = self.cuts.lock().unwrap().pop_front() {
            wire.breaks_after(cut);
        }
        *self.made.lock().unwrap() += 1;
        let (channel, table) = ([7; 32], self.table.clone());
        tokio::spawn(async move {
            let (mut io, mut prefix): (BoxedStream, _) = (Box::new(server), [0; 8]);
            let served = async {
                io.read_exact(&mut prefix).await?;
                let request = ResumeRequest::parse(&read_body(&mut io, &prefix).await?)?;
                table.serve(io, &request, &host(), &channel, None).await
            };
            // What breaks it is the test's.
            let _ = served.await;
        });
        Ok((Box::new(client), channel))
    }

    fn random(&self) -> u64 {
        7
    }

    fn address(&self) -> &str {
        "the proxy"
    }
}

/// Octets of which none stands where another could.
fn octets(salt: u8) -> Vec<u8> {
    (0..SAID).map(|at| (at % 251) as u8 ^ salt).collect()
}

/// Both sides have said much when the connection is lost, and the next two break after so many octets: what both said arrives, once and whole, and
/// so does what they say then.
async fn goes_on_though_two_break_after(cut: [usize; 2]) {
    let (first, [near, far]) = Wire::new(Duration::from_millis(1));
    let start = |io, side| Link::start_resumable(Box::new(io), side, limits(Limits::client()), ReplayBudget::default());
    let (client, server) = (start(near, Side::Client), start(far, Side::Server));
    let table = Arc::<Resumable>::default();
    let keys = || ResumeKeys::new(&[1; 48]);
    let offer = Offer { ssh: Some(host().name), ..Offer::default() };
    let _kept = table.keep(keys(), host().id, offer, server.clone(), None);
    let place = Breaking { table, cuts: Arc::new(Mutex::new([cut; 2].into())), made: Arc::default() };
    let going = tokio::spawn(keep_going(place.clone(), watch::Sender::default().subscribe(), client.clone(), keys()));

    let mut up = client.open("up").unwrap();
    let mut up_there = server.accept().await.unwrap().accept().unwrap();
    let mut down = server.open("down").unwrap();
    let mut down_there = client.accept().await.unwrap().accept().unwrap();
    sleep(Duration::from_secs(20)).await; // all of that is acknowledged
    first.breaks_after([0, 0]);
    up.write_all(&octets(1)).await.unwrap();
    down.write_all(&octets(2)).await.unwrap();
    for (stream, salt) in [(&mut up_there, 1), (&mut down_there, 2)] {
        let mut heard = vec![0; SAID];
        stream.read_exact(&mut heard).await.unwrap();
        assert!(heard == octets(salt), "cut after {cut:?}: something else arrived");
    }
    for (stream, there) in [(&mut up, &mut up_there), (&mut down, &mut down_there)] {
        stream.write_all(b"and on").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"and on", "cut after {cut:?}");
    }
    let made = *place.made.lock().unwrap();
    // What has arrived before does not go out again: the second may have too little left to break.
    assert!((2..=3).contains(&made), "cut after {cut:?}: {made} connections were made");
    going.abort();
}

// I25
#[tokio::test(start_paused = true)]
async fn a_link_goes_on_wherever_in_a_resumption_the_connection_breaks() {
    let again = [1, 11, 12, 13, SAID / 2, SAID];
    let of_the_client = (0..=REQUEST).chain(again.map(|at| REQUEST + at)).map(|at| [at, usize::MAX]);
    let of_the_server = (0..=ANSWER).chain(again.map(|at| ANSWER + at)).map(|at| [usize::MAX, at]);
    for cut in of_the_client.chain(of_the_server) {
        let whole = timeout(Duration::from_secs(60), goes_on_though_two_break_after(cut)).await;
        assert!(whole.is_ok(), "cut after {cut:?}: something never arrived");
    }
}
