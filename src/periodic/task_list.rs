//! The periodic tasks of a process, and how often each has run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::timing::Timing;

/// The list of a process; clones share it.
#[derive(Clone, Default)]
pub struct TaskList(Arc<Mutex<Vec<ListedTask>>>);

/// A task of the list.
#[derive(Clone)]
pub struct ListedTask {
    pub timing: Timing,
    counter: RunCounter,
}

impl ListedTask {
    /// Runs that have ended since the process started, failed ones included. None for a leader's task in a process that does
    /// not hold the lock.
    pub fn runs(&self) -> u64 {
        *self.counter.0.borrow()
    }
}

/// Counts the runs of one task; clones count the same task.
#[derive(Clone)]
pub struct RunCounter(Arc<watch::Sender<u64>>);

impl RunCounter {
    /// A run has ended.
    pub fn count(&self) {
        self.0.send_modify(|runs| *runs += 1);
    }

    /// Waits for the end of the first run.
    pub async fn until_first_run(&self) {
        // This handle keeps the sender alive, so the channel is not closed meanwhile.
        let _ = self.0.subscribe().wait_for(|runs| *runs > 0).await;
    }
}

impl TaskList {
    /// Adds a task, or finds the task of this name: a leader's tasks are built again whenever the process acquires the lock.
    /// [`PeriodicTask::run`](super::PeriodicTask::run) does this for its task; only a loop that another library runs is added by
    /// its room.
    pub fn add(&self, timing: Timing) -> RunCounter {
        let mut tasks = self.tasks();
        if let Some(task) = tasks.iter().find(|task| task.timing.name == timing.name) {
            return task.counter.clone();
        }
        let counter = RunCounter(Arc::new(watch::Sender::new(0)));
        tasks.push(ListedTask {
            timing,
            counter: counter.clone(),
        });
        counter
    }

    /// All tasks, in the order in which they were added.
    pub fn all(&self) -> Vec<ListedTask> {
        self.tasks().clone()
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<ListedTask>> {
        // Each addition is complete in itself, so a panic elsewhere leaves the list valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_task_that_is_added_again_keeps_its_place_and_its_count() {
        let list = TaskList::default();
        let timing = |name| Timing::new(name, Duration::from_secs(1));
        list.add(timing("sequencer")).count();
        list.add(timing("retention"));
        list.clone().add(timing("sequencer")).count();
        let shown: Vec<(&str, u64)> = list
            .all()
            .iter()
            .map(|task| (task.timing.name, task.runs()))
            .collect();
        assert_eq!(shown, [("sequencer", 2), ("retention", 0)]);
    }
}
