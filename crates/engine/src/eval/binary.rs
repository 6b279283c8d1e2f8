//! Binary operators: dispatch by the kinds of the two sides, and vector with scalar.

use promql::ast::{BinaryOp, Span, ValueType, VectorMatching};

use super::cells::{Keep, changes_metric, floats, is_comparison};
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::{Cell, Column};
use crate::plan::{Node, Pair};

impl Evaluator<'_> {
    /// The columns of a binary operation with at least one vector.
    pub(super) fn binary(&self, pair: &Pair, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        match (pair.lhs.value_type(), pair.rhs.value_type()) {
            (ValueType::Vector, ValueType::Vector) => {
                let default = VectorMatching {
                    cardinality: promql::ast::Cardinality::OneToOne,
                    labels: Vec::new(),
                    on: false,
                    include: Vec::new(),
                    fill_left: None,
                    fill_right: None,
                };
                let matching = pair.matching.as_ref().unwrap_or(&default);
                match pair.op {
                    BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
                        self.set_operation(pair, matching, sink)
                    }
                    _ => self.vector_operation(pair, matching, span, sink),
                }
            }
            (ValueType::Vector, _) => self.with_scalar(pair, &pair.lhs, &pair.rhs, false, span, sink),
            (_, ValueType::Vector) => self.with_scalar(pair, &pair.rhs, &pair.lhs, true, span, sink),
            _ => Err(EvalError::Invalid("expected an instant vector".into())),
        }
    }

    /// `vector op scalar`, or with `swapped` `scalar op vector`.
    fn with_scalar(
        &self,
        pair: &Pair,
        vector: &Node,
        scalar: &Node,
        swapped: bool,
        span: Span,
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        let scalar = self.scalar(scalar)?;
        let renames = changes_metric(pair.op) || pair.return_bool;
        let produce = |sink: &mut Sink<'_>| {
            self.stream(vector, &mut |column| {
                self.column_with_scalar(pair, column, &scalar, swapped, span);
                column.drop_name |= renames;
                if !changes_metric(pair.op) && column.is_empty() { Ok(()) } else { sink(column) }
            })
        };
        if renames { self.merging(vector, sink, produce) } else { produce(sink) }
    }

    fn column_with_scalar(
        &self,
        pair: &Pair,
        column: &mut Column,
        scalar: &[f64],
        swapped: bool,
        span: Span,
    ) {
        let op = pair.op;
        let keep = if pair.return_bool { Keep::Truth } else { Keep::Matching };
        if column.histograms.is_empty() && (changes_metric(op) || is_comparison(op)) {
            if swapped {
                let mut values = scalar.to_vec();
                floats(op, &mut values, &column.floats, keep, true);
                column.floats = values;
            } else {
                floats(op, &mut column.floats, scalar, keep, false);
            }
            return;
        }
        for (step, value) in scalar.iter().enumerate() {
            let Some(cell) = column.cell(step) else { continue };
            let number = Cell::Float(*value);
            let made = if swapped {
                self.pair(op, &number, &cell, span)
            } else {
                self.pair(op, &cell, &number, span)
            };
            match made {
                None => column.remove(step),
                Some(made) if pair.return_bool => {
                    column.remove(step);
                    column.floats[step] = f64::from(u8::from(made.keep));
                }
                Some(made) if !made.keep => column.remove(step),
                // A comparison always leaves the vector's value.
                Some(_) if is_comparison(op) => {}
                Some(made) => {
                    column.remove(step);
                    column.put(step, made.value);
                }
            }
        }
    }
}
