//! What is promised to several callers at once, and to one who goes away.

use std::sync::Arc;

use remoteler_core::{Expected, Storage, StorageError, Transaction};
use tokio::task::JoinSet;

use super::{NOW, Subject, value};

/// See the name.
pub async fn of_many_concurrent_deletes_and_creates_exactly_one_wins(subject: Box<dyn Subject>) {
    let store = subject.storage();
    let mut creates = JoinSet::new();
    for _ in 0..50 {
        let store = Arc::clone(&store);
        creates.spawn(async move { store.compare_and_swap("a", Expected::Absent, b"x", None, NOW).await.is_ok() });
    }
    assert_eq!(creates.join_all().await.into_iter().filter(|won| *won).count(), 1);
    let mut deletes = JoinSet::new();
    for _ in 0..50 {
        let store = Arc::clone(&store);
        deletes.spawn(async move { store.delete("a", NOW).await.unwrap() });
    }
    assert_eq!(deletes.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

/// See the name.
pub async fn no_concurrent_conditional_write_is_lost(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.put("n", b"0", None).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..10 {
                loop {
                    let item = store.get("n", NOW).await.unwrap().unwrap();
                    let next = number(&item.value) + 1;
                    let expected = Expected::At(item.revision);
                    match store.compare_and_swap("n", expected, next.to_string().as_bytes(), None, NOW).await {
                        Ok(_) => break,
                        Err(StorageError::Conflict { .. }) => tokio::task::yield_now().await,
                        Err(cause) => panic!("{cause}"),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(value(&*store, "n").await.map(|value| number(&value)), Some(80));
}

/// Money goes to and fro between two accounts: their sum is the same at every moment.
pub async fn concurrent_transactions_see_each_other_whole(subject: Box<dyn Subject>) {
    let store = subject.storage();
    store.transact(Transaction::new().put("account/a", "100", None).put("account/b", "100", None), NOW).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..4_u64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for round in 0..10 {
                move_money(&*store, (task + round) % 7).await;
            }
        });
    }
    let watcher = Arc::clone(&store);
    tasks.spawn(async move {
        for _ in 0..50 {
            let page = watcher.range("account/", None, 10, NOW).await.unwrap();
            assert_eq!(page.items.iter().map(|item| number(&item.value)).sum::<u64>(), 200, "{page:?}");
            tokio::task::yield_now().await;
        }
    });
    tasks.join_all().await;
    let page = store.range("account/", None, 10, NOW).await.unwrap();
    assert_eq!(page.items.iter().map(|item| number(&item.value)).sum::<u64>(), 200);
}

async fn move_money(store: &dyn Storage, amount: u64) {
    loop {
        let (a, b) =
            (store.get("account/a", NOW).await.unwrap().unwrap(), store.get("account/b", NOW).await.unwrap().unwrap());
        let (from, to) = if number(&a.value) > number(&b.value) { (&a, &b) } else { (&b, &a) };
        let transaction = Transaction::new()
            .expect(&from.key, Expected::At(from.revision))
            .expect(&to.key, Expected::At(to.revision))
            .put(&from.key, (number(&from.value).saturating_sub(amount)).to_string(), None)
            .put(&to.key, (number(&to.value) + amount.min(number(&from.value))).to_string(), None);
        match store.transact(transaction, NOW).await {
            Ok(_) => return,
            Err(StorageError::Conflict { .. }) => tokio::task::yield_now().await,
            Err(cause) => panic!("{cause}"),
        }
    }
}

/// See the name.
pub async fn a_dropped_future_has_written_all_or_nothing(subject: Box<dyn Subject>) {
    let store = subject.storage();
    for round in 0..50 {
        let writer = Arc::clone(&store);
        let (left, right) = (format!("left/{round}"), format!("right/{round}"));
        let transaction = Transaction::new().put(&left, "x", None).put(&right, "x", None);
        let task = tokio::spawn(async move { writer.transact(transaction, NOW).await });
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        task.abort();
        let _ = task.await; // gone, or done
        let page = store.range("", None, 10_000, NOW).await.unwrap();
        let there = |key: &str| page.items.iter().any(|item| item.key == key);
        assert_eq!(there(&left), there(&right), "round {round}");
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}
