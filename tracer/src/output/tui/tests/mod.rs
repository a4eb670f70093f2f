//! The picture, tested whole: frames against golden files, and every action in every state.

mod fixture;
mod frames;
mod properties;
