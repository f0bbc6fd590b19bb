//! The same done to many things, some at a time.

use std::collections::VecDeque;

use ouzel_runtime::JoinHandle;

/// Does the same to all items, at most `at_a_time` of them at once, each as a task of its own; gives the outcomes in the
/// items' order. The next is begun when the oldest is done.
pub(crate) async fn side_by_side<I, F>(
    items: impl IntoIterator<Item = I>,
    at_a_time: usize,
    mut each: impl FnMut(&I) -> F,
) -> Vec<(I, F::Output)>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let items = items.into_iter();
    let mut outcomes = Vec::with_capacity(items.size_hint().0);
    let mut running = VecDeque::new();
    for item in items {
        if running.len() >= at_a_time.max(1)
            && let Some((oldest, doing)) = running.pop_front()
        {
            outcomes.push((oldest, ended(doing).await));
        }
        let doing = ouzel_runtime::spawn(each(&item));
        running.push_back((item, doing));
    }
    for (item, doing) in running {
        outcomes.push((item, ended(doing).await));
    }
    outcomes
}

async fn ended<T>(doing: JoinHandle<T>) -> T {
    match doing.await {
        Ok(outcome) => outcome,
        // A task that panicked has ended its core, and with it the node.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use ouzel_runtime::cores::run_one;
    use ouzel_runtime::disk::BackendChoice;
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn as_many_as_asked_run_at_once_and_the_order_is_kept() {
        let run = run_one(BackendChoice::Blocking, &[], |_| async {
            let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            // Whoever comes first ends last, as far as the width allows.
            let turn = Rc::new(Semaphore::new(0));
            let outcomes = side_by_side(0..10, 3, |item| {
                let (item, running, most, turn) = (*item, running.clone(), most.clone(), turn.clone());
                async move {
                    running.set(running.get() + 1);
                    most.set(most.get().max(running.get()));
                    match item {
                        0 => turn.acquire().await.expect("it stays open").forget(),
                        2 => turn.add_permits(1),
                        _ => tokio::task::yield_now().await,
                    }
                    running.set(running.get() - 1);
                    item * item
                }
            });
            assert_eq!(outcomes.await, (0..10).map(|item| (item, item * item)).collect::<Vec<_>>());
            assert_eq!(most.get(), 3);
            assert!(side_by_side([(); 0], 3, |()| async {}).await.is_empty());
        });
        run.expect("a core");
    }
}
