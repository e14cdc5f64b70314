//! Exchange frames to trades to candles. State and arithmetic, no I/O; the Python definition is in `nbs/04_candles`.

pub mod decimal;
pub mod fold;
pub mod frame;
pub mod ids;
pub mod json;
pub mod message;
pub mod symbol_windows;
pub mod window;

#[cfg(feature = "python")]
mod python;
