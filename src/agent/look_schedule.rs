//! When to look at the node, the repository and the other members: at regular times, and before
//! each decision. And for how long the result of a look counts.
//!
//! Each subject has looks of its own. So a disk that does not answer hides only what is on it.

use std::time::{Duration, Instant};

use crate::clock::patience;

/// How often the agent looks.
const LOOK: Duration = Duration::from_secs(30);
/// How often the agent looks while the node or the repository is missing. So a backup that waits
/// for them begins soon after they are back.
const LOOK_WHILE_MISSING: Duration = Duration::from_secs(5);
/// A look that takes longer than this hangs. A look at a node that does not answer takes less.
const LONGEST_LOOK: Duration = Duration::from_mins(2);
/// How old a look may be when a run begins. A scavenge may have begun since then.
const RECENT_LOOK: Duration = Duration::from_secs(1);
/// What a look found is not known any more after this time.
const AGE_LIMIT: Duration = Duration::from_mins(5);

/// Something that the agent looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The repository.
    Repository,
    /// The node, its files, and what has to be given back to it.
    Node,
    /// What the other members of the cluster have backed up.
    Cluster,
}

impl Subject {
    pub(super) const ALL: [Self; 3] = [Self::Repository, Self::Node, Self::Cluster];

    /// The subject in words.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Repository => "the repository",
            Self::Node => "the node",
            Self::Cluster => "the other members' repositories",
        }
    }
}

/// The looks at all subjects.
#[derive(Debug)]
pub(super) struct LookSchedules {
    repository: LookSchedule,
    node: LookSchedule,
    cluster: LookSchedule,
    /// When the loop first asked whether the looks are recent, less the time that counts as recent.
    asked: Option<Instant>,
}

impl LookSchedules {
    /// No look has begun yet.
    pub(super) fn new() -> Self {
        Self {
            repository: LookSchedule::new(),
            node: LookSchedule::new(),
            cluster: LookSchedule::new(),
            asked: None,
        }
    }

    const fn of(&mut self, subject: Subject) -> &mut LookSchedule {
        match subject {
            Subject::Repository => &mut self.repository,
            Subject::Node => &mut self.node,
            Subject::Cluster => &mut self.cluster,
        }
    }

    const fn all(&self) -> [(Subject, &LookSchedule); 3] {
        [
            (Subject::Repository, &self.repository),
            (Subject::Node, &self.node),
            (Subject::Cluster, &self.cluster),
        ]
    }

    /// The subjects that a look is due at. Their looks count as begun, until [`Self::ended`] is
    /// called for each.
    pub(super) fn begin(&mut self) -> Vec<Subject> {
        let mut due = Vec::new();
        for subject in Subject::ALL {
            if self.of(subject).begins() {
                due.push(subject);
            }
        }

        due
    }

    /// The look at a subject has ended. `is_well`: it found what it looked for. Returns whether
    /// the subject was [lost](Self::newly_lost) before.
    pub(super) fn ended(&mut self, subject: Subject, is_well: bool) -> bool {
        self.of(subject).ended(is_well)
    }

    /// Something happened: the results of the last looks, and of those under way, do not count any
    /// more.
    pub(super) const fn forget(&mut self) {
        self.repository.forget();
        self.node.forget();
        self.cluster.forget();
    }

    /// The results of the looks at one subject do not count any more.
    pub(super) const fn forget_one(&mut self, subject: Subject) {
        self.of(subject).forget();
    }

    /// Whether the last looks still count, and no other is under way.
    pub(super) fn are_current(&self) -> bool {
        self.all().iter().all(|(_, looks)| looks.is_current())
    }

    /// Whether the last looks are new enough for a run to begin: they began after the first of
    /// these calls, or shortly before it. If not, they do not count any more. Call this only while
    /// they are current. [`Self::stop_asking`] ends the row of calls.
    pub(super) fn are_recent(&mut self) -> bool {
        let now = Instant::now();
        let asked = *self
            .asked
            .get_or_insert_with(|| now.checked_sub(RECENT_LOOK).unwrap_or(now));

        let mut are_recent = true;
        for subject in Subject::ALL {
            let looks = self.of(subject);
            if looks.last_began.is_none_or(|began| began < asked) {
                looks.forget();
                are_recent = false;
            }
        }

        are_recent
    }

    /// No run is to begin now. The next question starts anew.
    pub(super) const fn stop_asking(&mut self) {
        self.asked = None;
    }

    /// The subjects whose look hangs, each with the time that the look has lasted. Lost subjects
    /// are not among them.
    pub(super) fn hanging(&self) -> Vec<(Subject, Duration)> {
        let mut hanging = Vec::new();
        for (subject, looks) in self.all() {
            if let Some(lasted) = looks.hangs_for() {
                hanging.push((subject, lasted));
            }
        }

        hanging
    }

    /// The subjects of which nothing is known any more, because the last look is too old. Each is
    /// returned once, with the age of that look.
    pub(super) fn newly_lost(&mut self) -> Vec<(Subject, Duration)> {
        let mut lost = Vec::new();
        for subject in Subject::ALL {
            let looks = self.of(subject);
            if looks.loses() {
                lost.push((subject, looks.seen.elapsed()));
            }
        }

        lost
    }
}

/// The looks at one subject. There is never more than one at a time.
#[derive(Debug)]
struct LookSchedule {
    /// When the look under way began.
    began: Option<Instant>,
    /// When the last look ended. `None` if its result does not count any more for decisions.
    last: Option<Instant>,
    /// When the last look that ended had begun.
    last_began: Option<Instant>,
    /// When the last look ended, or when the agent was started.
    seen: Instant,
    /// Whether the last look is so old that its result is not known any more.
    is_lost: bool,
    /// Whether something happened since the look under way began. Its result does not count then.
    is_outdated: bool,
    /// Whether the last look missed its subject.
    last_look_failed: bool,
}

impl LookSchedule {
    fn new() -> Self {
        Self {
            began: None,
            last: None,
            last_began: None,
            seen: Instant::now(),
            is_lost: false,
            is_outdated: false,
            last_look_failed: false,
        }
    }

    /// Whether a look is due. If so, it counts as begun, until [`Self::ended`] is called.
    fn begins(&mut self) -> bool {
        let interval = if self.last_look_failed {
            LOOK_WHILE_MISSING
        } else {
            LOOK
        };
        if self.began.is_some() || !self.is_older_than(patience(interval)) {
            return false;
        }

        (self.began, self.is_outdated) = (Some(Instant::now()), false);
        true
    }

    fn ended(&mut self, is_well: bool) -> bool {
        self.last_look_failed = !is_well;
        self.last_began = self.began.take();

        // The age counts from the end of a look. Otherwise a look that takes long would never be
        // recent.
        let now = Instant::now();
        self.seen = now;
        self.last = (!self.is_outdated).then_some(now);

        std::mem::take(&mut self.is_lost)
    }

    const fn forget(&mut self) {
        (self.last, self.is_outdated) = (None, true);
    }

    const fn is_current(&self) -> bool {
        self.began.is_none() && self.last.is_some()
    }

    fn is_older_than(&self, age: Duration) -> bool {
        match self.last {
            Some(last) => last.elapsed() >= age,
            None => true,
        }
    }

    /// For how long the look under way has lasted, if it hangs: a disk does not answer.
    fn hangs_for(&self) -> Option<Duration> {
        let lasted = self.began?.elapsed();

        (!self.is_lost && lasted >= patience(LONGEST_LOOK)).then_some(lasted)
    }

    /// Whether the last look has just become too old.
    fn loses(&mut self) -> bool {
        if self.is_lost || self.seen.elapsed() < patience(AGE_LIMIT) {
            return false;
        }

        self.is_lost = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_from_before_an_event_does_not_count() {
        let mut looks = LookSchedule::new();
        assert!(!looks.is_current() && looks.begins() && !looks.begins());
        looks.ended(true);
        assert!(looks.is_current() && !looks.begins());

        looks.forget();
        assert!(!looks.is_current() && looks.begins());
        looks.forget();
        looks.ended(true);
        assert!(!looks.is_current() && looks.begins());

        looks.ended(true);
        assert!(looks.is_current());
    }

    #[test]
    fn a_look_that_does_not_end_hangs_and_then_its_subject_is_lost() {
        let mut looks = LookSchedule::new();
        assert_eq!(looks.hangs_for(), None, "no look is under way");
        assert!(looks.begins());
        assert_eq!(looks.hangs_for(), None, "the look has just begun");

        looks.began = Instant::now().checked_sub(LONGEST_LOOK);
        assert!(looks.hangs_for() >= Some(LONGEST_LOOK));
        assert!(!looks.loses());

        looks.seen = Instant::now().checked_sub(AGE_LIMIT).unwrap();
        assert!(looks.loses() && !looks.loses());
        assert_eq!(looks.hangs_for(), None, "it is lost");

        // A forgotten result was known nevertheless.
        looks.forget();
        assert!(looks.ended(true) && !looks.ended(true));
        assert!(!looks.loses());
        assert_eq!(looks.hangs_for(), None);
    }

    /// The looks at two subjects may take so long that the first is old when the second ends.
    #[test]
    fn looks_are_recent_if_they_began_after_the_question() {
        let mut all = LookSchedules::new();
        let look = |all: &mut LookSchedules| {
            for subject in all.begin() {
                all.ended(subject, true);
            }
        };
        look(&mut all);
        assert!(all.are_recent());
        all.stop_asking();

        for subject in Subject::ALL {
            all.of(subject).last_began = Instant::now().checked_sub(RECENT_LOOK * 2);
        }
        assert!(!all.are_recent());
        assert!(!all.are_current(), "they are forgotten");
        look(&mut all);
        all.asked = all.asked.and_then(|asked| asked.checked_sub(RECENT_LOOK));
        assert!(all.are_recent(), "the question is old, the looks are newer");
    }

    #[test]
    fn a_subject_that_does_not_answer_hides_no_other() {
        let mut all = LookSchedules::new();
        assert_eq!(all.begin(), Subject::ALL);
        all.ended(Subject::Node, true);
        all.ended(Subject::Cluster, true);
        assert!(!all.are_current(), "the repository has not answered");

        all.node.last = None;
        assert_eq!(all.begin(), [Subject::Node]);
        all.ended(Subject::Node, true);
        all.ended(Subject::Repository, true);
        assert!(all.are_current());
    }
}
