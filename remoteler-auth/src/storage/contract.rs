//! The contract of [`Storage`] as tests, for every implementation there is and will be: `storage_contract!(make)` in a file of tests makes one test of each
//! case. Owns what is promised in the trait's doc, case by case; knows no implementation. Panics where a promise is broken.
#![expect(clippy::unwrap_used, reason = "a test that fails should panic where it is")]

mod concurrency;
mod model;
mod watching;

use std::{sync::Arc, time::Duration};

use remoteler_core::{
    Expected, Item, MAX_KEY, MAX_OPERATIONS, MAX_VALUE, Revision, Storage, StorageError, Timestamp, Transaction,
};

pub use concurrency::*;
pub use model::agrees_with_the_model;
pub use watching::*;

/// A store to be tried, empty at first.
pub trait Subject: Send {
    /// The store.
    fn storage(&self) -> Arc<dyn Storage>;

    /// Ends it, as a program ends, and opens it again; `None` when it does not outlive the program. No other handle to it is left.
    fn restarted(self: Box<Self>) -> Option<Box<dyn Subject>>;
}

/// One test of each case, over what the expression makes: a `Box<dyn Subject>`, new each time.
#[macro_export]
macro_rules! storage_contract {
    ($make:expr) => {
        $crate::storage_contract! { @ $make,
            what_is_put_is_found_until_it_is_deleted,
            a_conditional_write_happens_only_over_what_was_expected,
            an_expired_item_is_as_if_deleted,
            a_range_is_the_prefix_and_nothing_else_page_by_page,
            what_is_beyond_the_limits_is_refused_and_nothing_is_written,
            the_largest_that_is_allowed_is_kept,
            revisions_grow_with_every_write_whatever_its_key,
            a_transaction_is_done_whole_or_not_at_all,
            a_transaction_without_operations_only_checks,
            what_is_written_outlives_a_restart,
            of_many_concurrent_deletes_and_creates_exactly_one_wins,
            no_concurrent_conditional_write_is_lost,
            concurrent_transactions_see_each_other_whole,
            a_dropped_future_has_written_all_or_nothing,
            a_watcher_is_told_of_its_prefix_in_order,
            a_watcher_waits_and_is_woken,
            a_list_and_the_changes_after_it_leave_no_gap,
            a_watcher_of_another_stores_revision_is_told_to_list_again,
            a_watcher_who_comes_back_later_misses_nothing_or_is_told,
        }
    };
    (@ $make:expr, $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::storage_contract::$case($make).await;
            }
        )+
    };
}

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

fn later() -> Timestamp {
    NOW.plus(Duration::from_secs(10))
}

fn is_conflict<T>(outcome: &Result<T, StorageError>, key: &str) -> bool {
    matches!(outcome, Err(StorageError::Conflict { key: found }) if found == key)
}

fn is_refused<T>(outcome: &Result<T, StorageError>) -> bool {
    matches!(outcome, Err(StorageError::Refused(_)))
}

async fn value(store: &dyn Storage, key: &str) -> Option<Vec<u8>> {
    store.get(key, NOW).await.unwrap().map(|item| item.value)
}

/// All below `prefix`, in pages of `limit`.
async fn all(store: &dyn Storage, prefix: &str, limit: usize, now: Timestamp) -> Vec<Item> {
    let (mut items, mut after): (Vec<Item>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.range(prefix, after.as_deref(), limit, now).await.unwrap();
        assert!(page.items.len() <= limit);
        items.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return items,
        }
    }
}

/// See the name.
pub async fn what_is_put_is_found_until_it_is_deleted(subject: Box<dyn Subject>) {
    let store = subject.storage();
    assert_eq!(store.get("a", NOW).await.unwrap(), None);
    let first = store.put("a", b"1", None).await.unwrap();
    let second = store.put("a", b"2", Some(later())).await.unwrap();
    assert!(second > first);
    let expected = Item { key: "a".into(), value: b"2".to_vec(), revision: second, expires: Some(later()) };
    assert_eq!(store.get("a", NOW).await.unwrap(), Some(expected));
    assert!(store.delete("a", NOW).await.unwrap());
    assert!(!store.delete("a", NOW).await.unwrap());
    assert_eq!(store.get("a", NOW).await.unwrap(), None);
    store.put("a", b"", None).await.unwrap();
    assert_eq!(value(&*store, "a").await, Some(Vec::new()), "an empty value is one");
}

/// See the name.
pub async fn a_conditional_write_happens_only_over_what_was_expected(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let write = |expected| store.compare_and_swap("a", expected, b"x", None, NOW);
    assert!(is_conflict(&write(Expected::At(Revision(1))).await, "a"));
    let first = write(Expected::Absent).await.unwrap();
    assert!(is_conflict(&write(Expected::Absent).await, "a"));
    let second = write(Expected::At(first)).await.unwrap();
    assert!(second > first);
    assert!(is_conflict(&write(Expected::At(first)).await, "a"));
    store.delete("a", NOW).await.unwrap();
    assert!(is_conflict(&write(Expected::At(second)).await, "a"));
    // Deleted and made again, it is another item.
    write(Expected::Absent).await.unwrap();
    assert!(is_conflict(&write(Expected::At(second)).await, "a"));
}

/// See the name.
pub async fn an_expired_item_is_as_if_deleted(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let written = store.put("a", b"1", Some(later())).await.unwrap();
    let just_before = Timestamp::from_unix_millis(later().unix_millis() - 1);
    assert!(store.get("a", just_before).await.unwrap().is_some());
    assert_eq!(store.get("a", later()).await.unwrap(), None);
    assert!(store.range("", None, 10, later()).await.unwrap().items.is_empty());
    let at = store.compare_and_swap("a", Expected::At(written), b"2", None, later()).await;
    assert!(is_conflict(&at, "a"));
    let transaction = Transaction::new().expect("a", Expected::At(written)).put("b", "2", None);
    assert!(is_conflict(&store.transact(transaction, later()).await, "a"));
    assert!(!store.delete("a", later()).await.unwrap());
    store.put("a", b"1", Some(later())).await.unwrap();
    store.compare_and_swap("a", Expected::Absent, b"2", None, later()).await.unwrap();
    assert_eq!(store.get("a", later()).await.unwrap().unwrap().value, b"2");
}

/// See the name.
pub async fn a_range_is_the_prefix_and_nothing_else_page_by_page(subject: Box<dyn Subject>) {
    let store = subject.storage();
    for key in ["a", "nodes", "nodes/1", "nodes/2", "nodes/ü", "nodes/3", "nodes/\u{10fffe}", "nodes0", "z"] {
        store.put(key, key.as_bytes(), None).await.unwrap();
    }
    for limit in [1, 2, 5, 100] {
        let keys: Vec<String> = all(&*store, "nodes/", limit, NOW).await.into_iter().map(|item| item.key).collect();
        assert_eq!(keys, ["nodes/1", "nodes/2", "nodes/3", "nodes/ü", "nodes/\u{10fffe}"]);
    }
    assert_eq!(all(&*store, "", 3, NOW).await.len(), 9);
    let first = |after, limit| {
        let store = store.clone();
        async move { store.range("nodes/", after, limit, NOW).await.unwrap().items.first().map(|item| item.key.clone()) }
    };
    assert_eq!(first(Some("a"), 1).await.as_deref(), Some("nodes/1"), "after a key before the prefix");
    assert_eq!(
        first(Some("nodes/25"), 0).await.as_deref(),
        Some("nodes/3"),
        "after a key that is not there; 0 is taken for 1"
    );
    assert_eq!(first(Some("z"), 1).await, None);
    let page = store.range("", None, usize::MAX, NOW).await.unwrap();
    assert_eq!((page.items.len(), page.next), (9, None));
}

/// See the name.
pub async fn what_is_beyond_the_limits_is_refused_and_nothing_is_written(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let long = "x".repeat(MAX_KEY + 1);
    for key in ["", "a\nb", "a\u{10ffff}", long.as_str()] {
        assert!(is_refused(&store.get(key, NOW).await));
        assert!(is_refused(&store.put(key, b"x", None).await));
        assert!(is_refused(&store.compare_and_swap(key, Expected::Absent, b"x", None, NOW).await));
        assert!(is_refused(&store.delete(key, NOW).await));
        let transaction = Transaction::new().put("good", "x", None).delete(key);
        assert!(is_refused(&store.transact(transaction, NOW).await));
    }
    let large = vec![0; MAX_VALUE + 1];
    assert!(is_refused(&store.put("a", &large, None).await));
    assert!(is_refused(&store.compare_and_swap("a", Expected::Absent, &large, None, NOW).await));
    assert!(is_refused(&store.transact(Transaction::new().put("a", large, None), NOW).await));
    let twice = Transaction::new().put("a", "1", None).put("a", "2", None);
    assert!(is_refused(&store.transact(twice, NOW).await));
    let many = (0..=MAX_OPERATIONS).fold(Transaction::new(), |all, n| all.put(format!("k/{n}"), "x", None));
    assert!(is_refused(&store.transact(many, NOW).await));
    assert!(all(&*store, "", 10, NOW).await.is_empty());
}

/// See the name.
pub async fn the_largest_that_is_allowed_is_kept(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let key = "x".repeat(MAX_KEY);
    let large: Vec<u8> = (0..MAX_VALUE).map(|n| u8::try_from(n % 251).unwrap()).collect();
    store.put(&key, &large, None).await.unwrap();
    assert_eq!(value(&*store, &key).await, Some(large));
    let many = (0..MAX_OPERATIONS).fold(Transaction::new(), |all, n| {
        all.expect(format!("k/{n}"), Expected::Absent).put(format!("k/{n}"), vec![0; MAX_VALUE / MAX_OPERATIONS], None)
    });
    store.transact(many, NOW).await.unwrap();
    assert_eq!(all(&*store, "k/", 7, NOW).await.len(), MAX_OPERATIONS);
}

/// See the name.
pub async fn revisions_grow_with_every_write_whatever_its_key(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let mut last = store.range("", None, 1, NOW).await.unwrap().revision;
    for round in 0..5 {
        let put = store.put("a", b"1", None).await.unwrap();
        let swapped = store.compare_and_swap("b", Expected::Absent, b"1", None, NOW).await.unwrap();
        let page = store.range("", None, 1, NOW).await.unwrap();
        assert!(last < put && put < swapped && page.revision >= swapped, "round {round}");
        assert!(store.delete("b", NOW).await.unwrap());
        let deleted = store.range("", None, 1, NOW).await.unwrap().revision;
        let both = store.transact(Transaction::new().put("c", "1", None).delete("a"), NOW).await.unwrap();
        assert!(page.revision < deleted && deleted < both, "round {round}");
        assert_eq!(store.get("c", NOW).await.unwrap().unwrap().revision, both);
        last = both;
    }
}

/// See the name.
pub async fn a_transaction_is_done_whole_or_not_at_all(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let a = store.put("a", b"1", None).await.unwrap();
    store.put("b", b"1", None).await.unwrap();
    let before = all(&*store, "", 10, NOW).await;
    let wrong = Transaction::new()
        .expect("a", Expected::At(a))
        .expect("c", Expected::At(a))
        .expect("b", Expected::Absent)
        .put("d", "1", None)
        .delete("a");
    assert!(is_conflict(&store.transact(wrong, NOW).await, "c"), "the first that does not fit is named");
    assert_eq!(all(&*store, "", 10, NOW).await, before);

    let right = Transaction::new()
        .expect("a", Expected::At(a))
        .expect("c", Expected::Absent)
        .put("a", "2", None)
        .put("c", "2", Some(later()))
        .delete("b")
        .delete("not there");
    let revision = store.transact(right.clone(), NOW).await.unwrap();
    let found = all(&*store, "", 10, NOW).await;
    let item = |key: &str, expires| Item { key: key.into(), value: b"2".to_vec(), revision, expires };
    assert_eq!(found, [item("a", None), item("c", Some(later()))]);
    assert!(is_conflict(&store.transact(right, NOW).await, "a"), "what was expected is over");
}

/// See the name.
pub async fn a_transaction_without_operations_only_checks(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let a = store.put("a", b"1", None).await.unwrap();
    assert_eq!(store.transact(Transaction::new().expect("a", Expected::At(a)), NOW).await.unwrap(), a);
    assert!(is_conflict(&store.transact(Transaction::new().expect("a", Expected::Absent), NOW).await, "a"));
    assert_eq!(store.range("", None, 10, NOW).await.unwrap().revision, a);
}

/// See the name.
pub async fn what_is_written_outlives_a_restart(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.put("a", b"1", None).await.unwrap();
    store.put("gone", b"1", None).await.unwrap();
    let last = store.transact(Transaction::new().put("b", "1", Some(later())).delete("gone"), NOW).await.unwrap();
    let before = all(&*store, "", 10, NOW).await;
    drop(store);
    let Some(subject) = subject.restarted() else { return };
    let store = subject.storage();
    assert_eq!(all(&*store, "", 10, NOW).await, before);
    assert!(store.put("c", b"1", None).await.unwrap() > last, "revisions never go back");
}
