//! Very many light vessels: all are connected soon.
//!
//! `CONTENTMONSTER_VESSELS=1000` makes it a thousand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bay::{Bay, Berth};
use super::policy::Tally;

#[tokio::test(flavor = "multi_thread")]
async fn many_light_vessels_are_connected_and_served_within_a_minute() {
    let number = std::env::var("CONTENTMONSTER_VESSELS").map_or(30, |number| number.parse().expect("a number"));
    let berth = |number: usize| Berth {
        name: Box::leak(format!("v{number}").into_boxed_str()),
        shell: true,
        policy: Arc::new(Tally::default()),
    };
    let bay = Bay::open((0..number).map(berth).collect(), "");
    let files = vec![("cargo".to_owned(), b"cargo".to_vec())];
    files.iter().for_each(|(name, bytes)| bay.put(name, bytes));
    let started = Instant::now();
    let report = bay.once(Duration::from_secs(10)).await.unwrap();
    let took = started.elapsed();
    println!("{number} vessels in {took:?}");
    assert!(report.is_all_delivered(), "{report:?}");
    assert_eq!(bay.unfinished(&files), Vec::<String>::new());
    assert_eq!(bay.said(), Vec::<String>::new(), "no login had to begin anew");
    assert!(took < Duration::from_secs(60), "{took:?}");
    bay.close().await;
}
