//! Readings and meters are accepted once and by the rules, whatever fails meanwhile.

mod bulk;
mod commit_answers;
mod faults;
mod meters;
mod readings;
mod rules;
mod submission;
