//! Runs tasks in every order of their polls, depth first, each order from fresh futures.
//!
//! A task runs from one await to the next; which of those that were woken goes on is a choice. Where nothing is chosen, a
//! task goes on for as long as it can, and then the next one in a circle. Every other choice is a preemption, and so many
//! of them are tried in one order as `KUIK_MODEL_PREEMPTIONS` says ([`PREEMPTIONS`] without it). Nothing but the choices
//! decides what happens, so an order is repeated by its choices. Where nobody can go on before all are done, somebody
//! waits for ever: that fails, like whatever a task asserts, and the order is printed.

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

/// How many preemptions are tried in one order, where nothing else is asked for.
const PREEMPTIONS: usize = 3;

/// Beyond this, two tasks wake one another for ever.
const MOST_STEPS: usize = 10_000;

/// A part of what is explored, and its name.
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

    fn can_go_on(&self) -> bool {
        !self.done && self.woken.0.load(Ordering::Relaxed)
    }

    fn go_on(&mut self) {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        self.done = self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    }
}

/// Lets the others go on before this task does.
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

/// How many preemptions the environment asks for.
pub(crate) fn preemptions() -> usize {
    std::env::var("KUIK_MODEL_PREEMPTIONS").map_or(PREEMPTIONS, |number| number.parse().expect("a number"))
}

/// Runs what `start` makes in every order with at most `preemptions`; returns how many orders there were.
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
        assert!(order.0.len() < MOST_STEPS, "the tasks wake one another for ever");
        let circle = (0..tasks.len()).map(|step| (last + step) % tasks.len());
        let able: Vec<usize> = circle.filter(|&task| tasks[task].can_go_on()).collect();
        assert!(!able.is_empty(), "waits for ever: {:?}", waiting(&tasks));
        let choice = choices.choose(if preemptions == 0 { 1 } else { able.len() });
        preemptions -= choice.min(1);
        last = able[choice];
        order.0.push(tasks[last].name);
        tasks[last].go_on();
    }
}

fn waiting(tasks: &[Task]) -> Vec<&'static str> {
    tasks.iter().filter(|task| !task.done).map(|task| task.name).collect()
}

/// Who went on, step by step: printed where it ends in a panic.
struct Order(Vec<&'static str>);

impl Drop for Order {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the order that fails: {}", self.0.join(", "));
        }
    }
}

/// The choices of one order: what was taken, of how many.
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
        assert_eq!(of, alternatives, "the same choices led elsewhere: a task depends on something else");
        self.at += 1;
        choice
    }

    /// Goes to the next order, which differs from this one as late as possible. `false` where this was the last.
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

    /// Two tasks of two steps each; what they did, order by order.
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
    fn every_order_comes_once() {
        assert_eq!(orders(0), ["aabb"].map(String::from).into());
        assert_eq!(orders(1), ["aabb", "bbaa", "abba"].map(String::from).into());
        assert_eq!(orders(3).len(), 6, "all that there are");
    }

    #[test]
    #[should_panic(expected = "waits for ever: [\"b\"]")]
    fn who_waits_for_ever_is_found() {
        explore(1, || {
            let told = Arc::new(tokio::sync::Notify::new());
            let (teller, listener) = (told.clone(), told);
            vec![
                Task::new("a", async move { teller.notify_waiters() }),
                Task::new("b", async move { listener.notified().await }),
            ]
        });
    }
}
