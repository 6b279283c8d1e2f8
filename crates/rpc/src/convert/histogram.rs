//! A native histogram with every bit of it.

use std::sync::Arc;

use model::Histogram;
use model::histogram::{ResetHint, Span};

use super::coding::{In, Malformed, Out};

const INTEGER: u8 = 1;
const CUSTOM: u8 = 2;

impl Out {
    pub(crate) fn histogram(&mut self, histogram: &Histogram) {
        let custom = histogram.custom_values.as_deref();
        let flags = if histogram.integer { INTEGER } else { 0 } | if custom.is_some() { CUSTOM } else { 0 };
        self.byte(flags);
        self.byte(histogram.reset_hint as u8);
        self.byte(histogram.schema as u8);
        for float in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
            self.float(0, float.to_bits());
        }
        for (spans, buckets) in [
            (&histogram.positive_spans, &histogram.positive_buckets),
            (&histogram.negative_spans, &histogram.negative_buckets),
        ] {
            self.varint(spans.len() as u64);
            for span in spans {
                self.zigzag(span.offset.into());
                self.varint(span.length.into());
            }
            self.floats(buckets);
        }
        if let Some(custom) = custom {
            self.floats(custom);
        }
    }

    fn floats(&mut self, floats: &[f64]) {
        self.varint(floats.len() as u64);
        for float in floats {
            self.float(0, float.to_bits());
        }
    }
}

impl In<'_> {
    pub(crate) fn histogram(&mut self) -> Result<Arc<Histogram>, Malformed> {
        let flags = self.byte()?;
        if flags & !(INTEGER | CUSTOM) != 0 {
            return Err(Malformed("a histogram has unknown flags"));
        }
        let reset_hint = match self.byte()? {
            0 => ResetHint::Unknown,
            1 => ResetHint::Reset,
            2 => ResetHint::NotReset,
            3 => ResetHint::Gauge,
            _ => return Err(Malformed("a histogram has an unknown reset hint")),
        };
        let schema = self.byte()? as i8;
        let mut float = || self.float(0).map(f64::from_bits);
        let (zero_threshold, zero_count, count, sum) = (float()?, float()?, float()?, float()?);
        let (positive_spans, positive_buckets) = (self.spans()?, self.floats()?);
        let (negative_spans, negative_buckets) = (self.spans()?, self.floats()?);
        let custom_values = if flags & CUSTOM != 0 { Some(self.floats()?.into()) } else { None };
        Ok(Arc::new(Histogram {
            integer: flags & INTEGER != 0,
            reset_hint,
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values,
        }))
    }

    fn spans(&mut self) -> Result<Vec<Span>, Malformed> {
        let count = self.count(2)?;
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let offset =
                i32::try_from(self.zigzag()?).map_err(|_| Malformed("a span begins too far away"))?;
            spans.push(Span { offset, length: self.small()? });
        }
        Ok(spans)
    }

    fn floats(&mut self) -> Result<Vec<f64>, Malformed> {
        let count = self.count(1)?;
        (0..count).map(|_| self.float(0).map(f64::from_bits)).collect()
    }
}
