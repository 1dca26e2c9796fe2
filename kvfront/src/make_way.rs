//! Making way for tasks that are ready.

/// Turns given away. One is not enough for a task that has to wake another one before anything is sent.
const TURNS: usize = 4;

/// Lets the other tasks of this thread run first. Where none is ready nothing is lost: the thread comes back at once.
pub(crate) async fn make_way() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}
