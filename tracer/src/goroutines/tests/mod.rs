//! The table against a simulated process whose truth is known, and against single cases by name.

mod cases;
mod properties;
mod simulation;
