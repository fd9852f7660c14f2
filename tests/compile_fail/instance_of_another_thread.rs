// A thread's own instance cannot be handed to another thread.

use std::convert::Infallible;
use std::thread;

use ferroyolo_concurrency::PerThread;

fn hand_on() {
    let instances = PerThread::new(|| Ok::<_, Infallible>(Vec::<u8>::new()));
    let mut other = None;
    let _ = instances.with(|own| {
        other = Some(thread::spawn(move || own.push(0)));
    });
}

fn main() {}
