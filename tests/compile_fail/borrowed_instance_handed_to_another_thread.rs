// Who borrows from a pool gives back, in the same thread: the pool tells by it who waits for itself.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::thread;

use ferroyolo_concurrency::Pool;

fn hand_on() {
    let pool = Pool::new(|| Ok::<_, Infallible>(0), NonZeroUsize::MIN);
    let guard = pool.get().expect("an instance");
    thread::scope(|scope| {
        scope.spawn(move || drop(guard));
    });
}

fn main() {}
