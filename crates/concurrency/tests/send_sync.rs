//! Which public types may be shared between threads, and which may move: a change of either breaks callers.

use std::cell::Cell;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::MutexGuard;

#[cfg(feature = "engine")]
use ferroyolo_concurrency::engine;
use ferroyolo_concurrency::metrics::{FailureKind, Failures, Histogram, Workers};
use ferroyolo_concurrency::process::signals::{Request, Shutdown};
use ferroyolo_concurrency::process::worker::{ServeError, Worker};
use ferroyolo_concurrency::process::{Limits, RestartPolicy, Stderr, WorkerCommand};
use ferroyolo_concurrency::{
    Canceller, DrainReport, JobError, LockError, LockMetrics, Locked, Metrics, OnceError, OnceInit,
    PerThread, PerThreadError, Pool, PoolError, PoolGuard, ProcessPool, Rejected, StartError, SubmitOptions,
    TaskQueue, Ticket, process, queue,
};

/// Asks whether `T` is `Send` or `Sync`: a constant of the type itself goes before one of a trait, where its bound holds.
struct Is<T>(PhantomData<T>);

trait Otherwise {
    const SEND: bool = false;
    const SYNC: bool = false;
}

impl<T> Otherwise for Is<T> {}

struct IsSend;
struct IsSync;

impl<T: Send> Is<(T, IsSend)> {
    const SEND: bool = true;
}

impl<T: Sync> Is<(T, IsSync)> {
    const SYNC: bool = true;
}

macro_rules! hold {
    ($($ty:ty: $send:literal $sync:literal,)*) => {
        $(
            const _: () = assert!(<Is<($ty, IsSend)>>::SEND == $send, concat!(stringify!($ty), ": Send"));
            const _: () = assert!(<Is<($ty, IsSync)>>::SYNC == $sync, concat!(stringify!($ty), ": Sync"));
        )*
    };
}

/// May move between threads, but not be shared, as a session may be that caches without a lock.
type OneAtATime = Cell<u8>;
/// May not even move.
type AtHome = Rc<u8>;
type Make<T> = fn() -> Result<T, Infallible>;

hold! {
    // The question itself.
    u8: true true,
    OneAtATime: true false,
    MutexGuard<'static, u8>: false true,
    AtHome: false false,

    Locked<OneAtATime>: true true,
    Locked<AtHome>: false false,
    PerThread<Make<OneAtATime>>: true true,
    Pool<Make<OneAtATime>>: true true,
    PoolGuard<'static, Make<OneAtATime>>: false false,
    PoolGuard<'static, Make<u8>>: false true,
    // What is made once is shared without a lock from then on.
    OnceInit<u8>: true true,
    OnceInit<OneAtATime>: true false,
    OnceInit<AtHome>: false false,

    TaskQueue<OneAtATime, OneAtATime>: true true,
    Ticket<OneAtATime>: true true,
    Canceller<OneAtATime>: true true,
    SubmitOptions: true true,
    ProcessPool: true true,

    LockError: true true,
    PerThreadError<u8>: true true,
    PoolError<u8>: true true,
    OnceError<u8>: true true,
    JobError: true true,
    StartError: true true,
    Rejected<u8>: true true,
    DrainReport: true true,
    Metrics: true true,
    LockMetrics: true true,
    Workers: true true,
    FailureKind: true true,
    Failures: true true,
    Histogram: true true,

    queue::Builder: true true,
    process::Builder: true true,
    process::StartError: true true,
    WorkerCommand: true true,
    Limits: true true,
    Stderr: true true,
    RestartPolicy: true true,
    Worker: true true,
    ServeError: true true,
    Shutdown: true true,
    Request: true true,
}

#[cfg(feature = "engine")]
hold! {
    engine::Sessions: true true,
    engine::Policy: true true,
    engine::Predictor: true true,
    engine::PredictError: true true,
    engine::Picture: true true,
    engine::ProcessPredictor: true true,
    engine::PredictTicket: true true,
    engine::PictureError: true true,
    engine::SubmitError: true true,
    Locked<ferroyolo::Session>: true true,
    Pool<engine::Sessions>: true true,
    PerThread<engine::Sessions>: true true,
}

#[test]
fn a_wrapped_closure_is_shared_between_threads() {
    fn asks_for_both(_: impl Fn(u8) -> Result<u8, LockError> + Send + Sync) {}
    let cell: OneAtATime = Cell::new(0);
    asks_for_both(ferroyolo_concurrency::locked(move |n| cell.replace(n)));
}
