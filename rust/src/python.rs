//! What Python sees; `crypto_rt/_core.pyi` documents it.

use std::str::from_utf8;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::decimal::{parse_amount, push_amount};
use crate::fold::{Fold, RestoredCandle};
use crate::frame;
use crate::json::Invalid;
use crate::message::Side;

impl From<Invalid> for PyErr {
    fn from(error: Invalid) -> Self {
        PyValueError::new_err(error.0)
    }
}

fn normal(value: u128) -> String {
    let mut text = Vec::with_capacity(24);
    push_amount(&mut text, value);
    String::from_utf8(text).expect("digits are ASCII")
}

fn amount(name: &str, text: &str) -> PyResult<u128> {
    parse_amount(text.as_bytes()).ok_or_else(|| PyValueError::new_err(format!("expected {name} as decimal text, was {text:?}")))
}

type Row<'a> = (&'a str, i64, String, String, &'static str, &'static str, i64);

#[pyfunction]
fn decode_trade_frame<'py>(py: Python<'py>, raw: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let trades = frame::decode_trade_frame(raw)?;
    let rows: Vec<Row> = trades
        .iter()
        .map(|t| {
            let side = if t.side == Side::Buy { "buy" } else { "sell" };
            (from_utf8(&t.symbol).unwrap_or_default(), t.trade_id, normal(t.price), normal(t.quantity), side, t.order_type, t.event_ms)
        })
        .collect();
    rows.into_pyobject(py)
}

#[pyclass(module = "crypto_rt._core")]
struct CandleFold {
    fold: Fold,
    interval_seconds: i64,
}

#[pymethods]
impl CandleFold {
    #[new]
    #[pyo3(signature = (interval_seconds, grace_ms = 2000, keep_closed = 120, proof_wait_ms = 0))]
    fn new(interval_seconds: i64, grace_ms: i64, keep_closed: i64, proof_wait_ms: i64) -> PyResult<Self> {
        for (name, value, low, high) in [
            ("interval_seconds", interval_seconds, 1, 604_800),
            ("grace_ms", grace_ms, 0, 86_400_000),
            ("keep_closed", keep_closed, 0, 1_000_000),
            ("proof_wait_ms", proof_wait_ms, 0, 86_400_000),
        ] {
            if !(low..=high).contains(&value) {
                return Err(PyValueError::new_err(format!("{name} must be from {low} to {high}, was {value}")));
            }
        }
        Ok(CandleFold { fold: Fold::new(interval_seconds, grace_ms, keep_closed, proof_wait_ms), interval_seconds })
    }

    #[pyo3(signature = (raw, offset = 0))]
    fn feed<'py>(&mut self, py: Python<'py>, raw: &[u8], offset: i64) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        Ok(self.fold.feed(raw, offset)?.iter().map(|candle| PyBytes::new(py, candle)).collect())
    }

    fn feed_many<'py>(&mut self, py: Python<'py>, raws: &Bound<'py, PyList>, offsets: Vec<i64>) -> PyResult<Vec<(usize, Bound<'py, PyAny>)>> {
        if raws.len() != offsets.len() {
            return Err(PyValueError::new_err(format!("expected an offset for each of {} messages, was {}", raws.len(), offsets.len())));
        }
        let mut out = Vec::new();
        for (index, (raw, offset)) in raws.iter().zip(offsets).enumerate() {
            match self.fold.feed(raw.cast::<PyBytes>()?.as_bytes(), offset) {
                Ok(candles) => out.extend(candles.iter().map(|candle| (index, PyBytes::new(py, candle).into_any()))),
                Err(Invalid(reason)) => out.push((index, PyString::new(py, &reason).into_any())),
            }
        }
        Ok(out)
    }

    #[pyo3(signature = (raw, offset = 0))]
    fn feed_frame(&mut self, raw: &[u8], offset: i64) -> PyResult<usize> {
        Ok(self.fold.feed_frame(raw, offset)?)
    }

    fn forming<'py>(&mut self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.fold.forming().iter().map(|candle| PyBytes::new(py, candle)).collect()
    }

    fn restore(&mut self, symbol: &str, candle: &Bound<'_, PyAny>) -> PyResult<()> {
        let close: String = candle.getattr("close")?.extract()?;
        let (interval, start_ms): (i64, i64) = (candle.getattr("interval_seconds")?.extract()?, candle.getattr("start_ms")?.extract()?);
        if interval != self.interval_seconds || start_ms % (interval * 1000) != 0 {
            return Err(PyValueError::new_err(format!("expected a candle of {} s, was one of {interval} s that starts at {start_ms}", self.interval_seconds)));
        }
        let quote = |name: &str| -> PyResult<Option<u128>> {
            let text: Option<String> = candle.getattr(name)?.extract()?;
            text.map(|text| amount(name, &text)).transpose()
        };
        let candle = RestoredCandle {
            start_ms,
            revision: candle.getattr("revision")?.extract()?,
            close: amount("close", &close)?,
            last_id: candle.getattr("last_trade_id")?.extract()?,
            count: candle.getattr("trade_count")?.extract()?,
            is_partial: candle.getattr("is_partial")?.extract()?,
            is_unproven: candle.getattr("is_unproven")?.extract::<Option<bool>>()?.unwrap_or(false),
            from_trades: candle.getattr("source")?.extract::<String>()? == "trades",
            bid: quote("bid")?,
            ask: quote("ask")?,
        };
        self.fold.restore(symbol.as_bytes(), candle);
        Ok(())
    }

    fn rejected(&mut self) -> Vec<(i64, i64, String)> {
        self.fold.rejected().into_iter().map(|r| (r.offset, r.trade_id, r.reason)).collect()
    }

    fn oldest_offset(&mut self) -> Option<i64> {
        self.fold.oldest_offset()
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (c, counts) = (&self.fold.counts, PyDict::new(py));
        for (name, value) in [
            ("trades", c.trades),
            ("zero_quantity", c.zero_quantity),
            ("duplicates", c.duplicates),
            ("covered", c.covered),
            ("too_late", c.too_late),
            ("marks", c.marks),
            ("candles", c.candles),
            ("empty", c.empty),
            ("unproven", c.unproven),
            ("revisions", c.revisions),
        ] {
            counts.set_item(name, value)?;
        }
        Ok(counts)
    }
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_trade_frame, module)?)?;
    module.add_class::<CandleFold>()
}
