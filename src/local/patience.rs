//! Limits the wait for a disk call, because the call may hang, for example on a mount whose server is down.

use std::sync::mpsc;
use std::time::Duration;

/// Runs `ask` on its own thread; `None` if it doesn't finish in time or the thread can't be started. After a timeout,
/// the thread continues until the disk answers.
pub fn within<T: Send + 'static>(limit: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    let asking = std::thread::Builder::new().name("disk probe".into());
    // After the timeout, there is no receiver for the answer.
    asking.spawn(move || drop(answer.send(ask()))).ok()?;
    answered.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_ends_with_its_deadline() {
        let (keep, hang) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        assert_eq!(within(Duration::from_millis(20), move || hang.recv().is_ok()), None);
        drop(keep);
    }
}
