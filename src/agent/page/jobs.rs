//! The run that is under way, and what happens next.

use maud::{Markup, html};

use super::formatting::{bytes, took};
use super::{Page, with_code};
use crate::agent::run_record::Trigger;
use crate::agent::status::{JobStatus, RunningJob};

impl Page<'_> {
    pub(super) fn running(&self, running: &RunningJob) -> Markup {
        html! {
            section aria-labelledby="running" {
                h2 #running { "Running now" }
                div.running {
                    p {
                        strong { (running.job) } ", " (running.step)
                        ", for " (took(running.began, self.status.at))
                    }
                    (progress(running))
                    p.more {
                        @if running.holds.is_empty() { "Nothing is stopped at the node." }
                        @else {
                            "Stopped at the node, and given back at the end: "
                            strong { (running.holds.join(", ")) }
                        }
                    }
                }
            }
        }
    }

    pub(super) fn jobs(&self) -> Markup {
        html! {
            @if !self.status.jobs.is_empty() {
                section aria-labelledby="jobs" {
                    h2 #jobs { "What happens next" }
                    div.jobs { @for job in &self.status.jobs { (self.job(job)) } }
                }
            }
        }
    }

    fn job(&self, job: &JobStatus) -> Markup {
        html! {
            article.job {
                h3 { (job.plan.job) }
                p.next { (self.next(job)) }
                @if let Some(hold) = &job.plan.hold { p.hold { "Waits: " (with_code(hold)) } }
                p.more { "Schedule: " code { (job.schedule) } }
                @if let Some(last) = &job.last {
                    p.more {
                        "Last: " (self.outcome(last)) ", " (self.times.relative(last.ended))
                    }
                }
                @if job.failures > 0 { (self.failures(job)) }
            }
        }
    }

    fn failures(&self, job: &JobStatus) -> Markup {
        let times = match job.failures {
            1 => "once".to_owned(),
            many => format!("{many} times in a row"),
        };

        html! {
            p.more.bad { "Failed " (times) }
            p.more {
                @match job.last_success {
                    None => "Never done so far",
                    Some(success) => { "Last done " (self.times.relative(success)) }
                }
            }
        }
    }

    fn next(&self, job: &JobStatus) -> Markup {
        if let Some(running) = &self.status.running
            && running.job == job.plan.job
        {
            return html! { "running" };
        }

        let why = match job.plan.trigger {
            Trigger::Schedule => "",
            Trigger::First => " – the first backup",
            Trigger::Change => " – because of what was written",
            Trigger::Retry => " – again after a failure",
        };
        html! {
            @match job.plan.due {
                None => "not planned",
                Some(due) if due <= self.status.at => { "due now" (why) }
                Some(due) => {
                    (self.times.relative(due))
                    span.more { ", at " (self.time(due, "%H:%M")) (why) }
                }
            }
        }
    }
}

fn progress(running: &RunningJob) -> Markup {
    let (done, expected) = (running.done, running.expected);

    html! {
        @if expected > 0 {
            @let done = done.min(expected);
            progress max=(expected) value=(done) aria-label="Progress of this step" {}
            p.more { (bytes(done)) " of " (bytes(expected)) " in this step" }
        } @else if done > 0 {
            p.more { (bytes(done)) " in this step" }
        }
    }
}
