//! The points at which a crash or a failing disk matters, named so that tests can stop the world there.
//!
//! Outside of tests reaching a step does nothing and costs nothing. A test gives its thread a hook that is called with
//! each step: it may copy the state folder, which is what a crash at that moment would leave, or answer with an error,
//! which is what a failing disk would.

pub(super) use drover_durability::Step;

#[cfg(not(test))]
#[inline]
pub(super) const fn reach(_step: Step) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use hook::refuse_writes_while;
#[cfg(test)]
pub(super) use hook::{reach, with_hook};

#[cfg(test)]
mod hook {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Step;

    type Hook = Box<dyn FnMut(Step) -> io::Result<()>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub(in crate::store) fn reach(step: Step) -> io::Result<()> {
        HOOK.with_borrow_mut(|hook| hook.as_mut().map_or(Ok(()), |hook| hook(step)))
    }

    /// Runs `body` with `hook` called at each step that this thread reaches.
    pub(in crate::store) fn with_hook<T>(
        hook: impl FnMut(Step) -> io::Result<()> + 'static,
        body: impl FnOnce() -> T,
    ) -> T {
        HOOK.set(Some(Box::new(hook)));
        let result = body();
        HOOK.set(None);
        result
    }

    /// From now on the disk is full for what this thread writes, while `full` is set.
    pub(crate) fn refuse_writes_while(full: Arc<AtomicBool>) {
        HOOK.set(Some(Box::new(move |step| match step {
            Step::WriteChunk if full.load(Ordering::Relaxed) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        })));
    }
}
