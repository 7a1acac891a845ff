//! `docs/protocol.md` says what the code does: its tables are compared with the constants.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use remoteler_tunnel::{
    ACK_EVERY, ACK_WITHIN, ALPN_AUTH, ALPN_AUTH_RELAY, ALPN_SERVICE, ALPN_SSH, ALPN_TUNNEL, ASK_WITHIN,
    AdmissionLimits, BODY_LEN, CARRIER_PATH, Code, DATA_LEN, DOUBT_AFTER, EXPORT_CHANNEL, EXPORT_KEYS, FrameType,
    HEADER_LEN, Keepalive, LEAST_UNDER_WAY, Limits, MAGIC, MAJOR, MAX_BODY_LEN, MAX_CLIENT_HELLO, MAX_DIAL_LEN,
    MAX_NOTICE_LEN, MAX_ORIGIN_LEN, MAX_PROXIES, MAX_REGISTRATION_LEN, MAX_RESUME_BODY_LEN, METERED, MINOR,
    PEER_BUDGETS, PROMPT, PROMPT_EVERY, PROMPT_LEAST, REGISTRATION_METADATA, RESUME_BODY_LEN, RESUME_MAGIC, ResumeKeys,
    SOONEST, Scope,
};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap()
}

/// The rows of the table whose first head cell is `head`, as trimmed cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let text = document();
    let lines: Vec<&str> = text.lines().collect();
    let start =
        lines.windows(2).position(|pair| pair[0].starts_with(&format!("| {head} |")) && pair[1].starts_with("| -"));
    let start = start.unwrap_or_else(|| panic!("there is no table {head}"));
    let rows = lines[start + 2..].iter().take_while(|line| line.starts_with('|'));
    let cells = |line: &&str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

fn says(text: &str) {
    let flat = document().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(text), "the document does not say: {text}");
}

#[test]
fn the_table_of_frames_is_the_code_s() {
    let expected: Vec<Vec<String>> = FrameType::ALL
        .into_iter()
        .map(|kind| {
            let (least, most, scope) = kind.shape();
            let scope = match scope {
                Scope::Stream => "stream",
                Scope::Link => "link",
                Scope::Either => "either",
            };
            let sequenced = if kind.is_sequenced() { "yes" } else { "no" };
            vec![
                format!("{:#04x}", kind as u8),
                kind.name().to_owned(),
                format!("{least}–{most}"),
                scope.to_owned(),
                sequenced.to_owned(),
            ]
        })
        .collect();

    let written: Vec<Vec<String>> = table("type").into_iter().map(|row| row[..5].to_vec()).collect();

    assert_eq!(written, expected);
    assert_eq!(HEADER_LEN, 12);
}

#[test]
fn the_table_of_codes_is_the_code_s() {
    let expected: Vec<Vec<String>> =
        Code::ALL.into_iter().map(|(code, name)| vec![code.number().to_string(), name.to_owned()]).collect();

    assert_eq!(table("code"), expected);
}

#[test]
fn the_tables_of_limits_and_budgets_are_the_code_s() {
    let limits = Limits::server();
    let expected = [
        u64::from(limits.max_streams),
        limits.max_backlog as u64,
        limits.max_metadata.into(),
        limits.stream_window.into(),
        limits.max_stream_window.into(),
        limits.link_window.into(),
        limits.send_buffer as u64,
        limits.link_send_buffer as u64,
        limits.max_unacked,
        DATA_LEN as u64,
    ];
    let written: Vec<u64> = table("limit").iter().map(|row| row[1].parse().unwrap()).collect();
    assert_eq!(written, expected);

    let budgets: Vec<Vec<String>> = PEER_BUDGETS
        .iter()
        .map(|(name, burst, per_second)| vec![(*name).to_owned(), burst.to_string(), per_second.to_string()])
        .collect();
    assert_eq!(table("budget"), budgets);
}

// I27
#[test]
fn one_peer_can_make_this_side_hold_sixteen_mebibytes_of_octets_at_most() {
    let Limits { link_window, link_send_buffer, max_unacked, .. } = Limits::server();

    assert!(u64::from(link_window) + link_send_buffer as u64 + max_unacked <= 16 << 20);
}

#[test]
fn the_table_of_the_hello_is_the_code_s() {
    let rows = table("octets");
    let sizes: Vec<usize> = rows.iter().map(|row| row[0].parse().unwrap()).collect();

    assert_eq!(sizes[..4], [4, 1, 1, 2]);
    assert_eq!(sizes[4..].iter().sum::<usize>(), BODY_LEN);
    assert_eq!(rows[0][1], format!("`{}`", std::str::from_utf8(&MAGIC).unwrap()));
    assert!(rows[1][1].contains(&format!("version, {MAJOR}.")));
    assert!(rows[2][1].contains(&format!("version, {MINOR}.")));
    assert!(rows[3][1].contains(&format!("{BODY_LEN} in this version, at most {MAX_BODY_LEN}")));
}

#[test]
fn the_numbers_in_the_text_are_the_code_s() {
    let AdmissionLimits { deadline, total, per_source, per_customer } = AdmissionLimits::default();
    let client = Keepalive::CLIENT;
    let server = Keepalive::SERVER;
    for protocol in [ALPN_SSH, ALPN_TUNNEL, ALPN_AUTH] {
        says(&format!("exactly `{protocol}`"));
    }
    says(&format!("the ClientHello (at most {MAX_CLIENT_HELLO} octets)"));
    says(&format!("to being somebody a connection has {} s", deadline.as_secs()));
    says(&format!("there may be {total} connections that are nobody, and {per_source} of them"));
    says(&format!("and {per_customer} from one IPv6 /48"));
    says(&format!("two octets of length (1 to {MAX_DIAL_LEN})"));
    says(&format!("two octets of length (1 to {MAX_REGISTRATION_LEN})"));
    says(&format!("two octets of length (1 to {MAX_ORIGIN_LEN})"));
    says(&format!("two octets of length (1 to {MAX_NOTICE_LEN})"));
    says(&format!("all proxies of the cluster, at most {MAX_PROXIES},"));
    says(&format!("ALPN `{ALPN_SERVICE}`"));
    says(&format!("`GET {CARRIER_PATH}`"));
    let (seldom, rarely) = (Keepalive::METERED_CLIENT, Keepalive::METERED_SERVER);
    says(&format!(
        "these times are {} s, {} s and {} s",
        seldom.ping_after.as_secs(),
        rarely.ping_after.as_secs(),
        seldom.dead_after.as_secs()
    ));
    says(&format!("{METERED}: an idle link is asked after seldom"));
    says(&format!("{PROMPT}: a DATA frame may ask to be acknowledged"));
    says(&format!("bulk data waits when {LEAST_UNDER_WAY} octets are under way, or"));
    says(&format!("a frame asks after every {PROMPT_EVERY} octets"));
    says(&format!("asked with fewer than {PROMPT_LEAST} octets unacknowledged"));
    says(&format!("with ALPN `{ALPN_AUTH_RELAY}`"));
    says(&format!("An ACK is due after {ACK_EVERY} octets"));
    says(&format!(
        "PING after {} s of silence, the server after {} s; after {} s of silence",
        client.ping_after.as_secs(),
        server.ping_after.as_secs(),
        client.dead_after.as_secs()
    ));
    assert_eq!(client.dead_after, server.dead_after);
    says(std::str::from_utf8(REGISTRATION_METADATA).unwrap());
}

#[test]
fn the_message_that_takes_a_link_up_again_is_the_code_s() {
    let message = ResumeKeys::new(&[1; 48]).request(3, 5, &[7; 32]);
    let hex: Vec<String> =
        message.chunks(20).map(|row| row.iter().map(|octet| format!("{octet:02x}")).collect()).collect();
    says(&hex.join(" "));
    says(&format!("length of the rest: {RESUME_BODY_LEN}"));
    says(&format!("1 + up to {}", MAX_RESUME_BODY_LEN - 1));
    for text in [&RESUME_MAGIC[..], EXPORT_KEYS, EXPORT_CHANNEL] {
        says(&format!("`{}`", std::str::from_utf8(text).unwrap()));
    }
    says(&format!(
        "{} s of silence and lets the connection go after {} s",
        ASK_WITHIN.as_secs(),
        DOUBT_AFTER.as_secs()
    ));
    says(&format!("but of no less than {} ms each", SOONEST.as_millis()));
    says(&format!("after {ACK_EVERY} octets and after {} s at the latest", ACK_WITHIN.as_secs()));
    says(&format!("{} min are given", Limits::server().resume_within.as_secs() / 60));
}
