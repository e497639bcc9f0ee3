//! Explorer that runs tasks in every order of their polls, depth first, each order from fresh futures.
//!
//! A task runs from one await to the next; which of the woken tasks runs next is a choice. By default, a task
//! continues for as long as it can, then the next one in a circle. Every other choice is a preemption; up to
//! `KUIK_MODEL_PREEMPTIONS` ([`PREEMPTIONS`] by default) are tried per order. The choices alone determine the run, so
//! an order is reproduced by its choices. If no task can continue before all are done, there is a deadlock: it fails
//! the test, like any assertion of a task, and the order is printed.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

/// Default maximum number of preemptions per order.
const PREEMPTIONS: usize = 3;

/// Beyond this, two tasks wake each other forever.
const MOST_STEPS: usize = 10_000;

/// A task to explore, and its name.
pub(crate) struct Task {
    name: &'static str,
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    done: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    pub(crate) fn new(name: &'static str, future: impl Future<Output = ()> + 'static) -> Self {
        Self { name, future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))), done: false }
    }

    fn can_continue(&self) -> bool {
        !self.done && self.woken.0.load(Ordering::Relaxed)
    }

    fn step(&mut self) {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        self.done = self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    }
}

/// Yields to the other tasks.
pub(crate) async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Maximum number of preemptions, from the environment.
pub(crate) fn preemptions() -> usize {
    std::env::var("KUIK_MODEL_PREEMPTIONS").map_or(PREEMPTIONS, |number| number.parse().expect("a number"))
}

/// Runs the tasks of `start` in every order with at most `preemptions`; returns the number of orders.
pub(crate) fn explore(preemptions: usize, mut start: impl FnMut() -> Vec<Task>) -> usize {
    let mut choices = Choices::default();
    let mut orders = 0;
    loop {
        run(start(), preemptions, &mut choices);
        orders += 1;
        if !choices.next_order() {
            return orders;
        }
    }
}

/// Runs one order to its end.
fn run(mut tasks: Vec<Task>, mut preemptions: usize, choices: &mut Choices) {
    let mut order = Order(Vec::new());
    let mut last = 0;
    while !tasks.iter().all(|task| task.done) {
        assert!(order.0.len() < MOST_STEPS, "the tasks wake each other forever");
        let circle = (0..tasks.len()).map(|step| (last + step) % tasks.len());
        let able: Vec<usize> = circle.filter(|&task| tasks[task].can_continue()).collect();
        assert!(!able.is_empty(), "waits forever: {:?}", waiting(&tasks));
        let choice = choices.choose(if preemptions == 0 { 1 } else { able.len() });
        preemptions -= choice.min(1);
        last = able[choice];
        order.0.push(tasks[last].name);
        tasks[last].step();
    }
}

fn waiting(tasks: &[Task]) -> Vec<&'static str> {
    tasks.iter().filter(|task| !task.done).map(|task| task.name).collect()
}

/// The tasks that ran, step by step: printed on panic.
struct Order(Vec<&'static str>);

impl Drop for Order {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the order that fails: {}", self.0.join(", "));
        }
    }
}

/// The choices of one order: index taken, and number of alternatives.
#[derive(Default)]
struct Choices {
    taken: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, alternatives: usize) -> usize {
        if self.at == self.taken.len() {
            self.taken.push((0, alternatives));
        }
        let (choice, of) = self.taken[self.at];
        assert_eq!(of, alternatives, "the same choices led to another order: a task is not deterministic");
        self.at += 1;
        choice
    }

    /// Advances to the next order, which differs from this one as late as possible. `false` if this was the last.
    fn next_order(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, of)) = self.taken.pop() {
            if choice + 1 < of {
                self.taken.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

mod tests {
    use std::{cell::RefCell, collections::HashSet, rc::Rc};

    use super::*;

    /// Two tasks of two steps each; returns their steps, by order.
    fn orders(preemptions: usize) -> HashSet<String> {
        let seen = Rc::new(RefCell::new(vec![]));
        let explored = explore(preemptions, || {
            seen.borrow_mut().push(String::new());
            let step = |name: &'static str| {
                let seen = seen.clone();
                move || seen.borrow_mut().last_mut().unwrap().push_str(name)
            };
            let two = |step: Box<dyn Fn()>| async move {
                step();
                pause().await;
                step();
            };
            vec![Task::new("a", two(Box::new(step("a")))), Task::new("b", two(Box::new(step("b"))))]
        });
        let orders: HashSet<String> = seen.take().into_iter().collect();
        assert_eq!(orders.len(), explored, "no order comes twice");
        orders
    }

    #[test]
    fn every_order_is_explored_once() {
        assert_eq!(orders(0), ["aabb"].map(String::from).into());
        assert_eq!(orders(1), ["aabb", "bbaa", "abba"].map(String::from).into());
        assert_eq!(orders(3).len(), 6, "all orders");
    }

    #[test]
    #[should_panic(expected = "waits forever: [\"b\"]")]
    fn deadlock_is_detected() {
        explore(1, || {
            let notify = Arc::new(tokio::sync::Notify::new());
            let (notifier, listener) = (notify.clone(), notify);
            vec![
                Task::new("a", async move { notifier.notify_waiters() }),
                Task::new("b", async move { listener.notified().await }),
            ]
        });
    }
}
