//! What of the language a query may use here, by upstream's names: for `/api/v1/features`.

use promql::ast::{AggregateOp, BinaryOp};

use crate::Frontend;

impl Frontend {
    /// Every function, and whether a query may use it.
    pub fn functions(&self) -> Vec<(&'static str, bool)> {
        let experimental = self.config().parser.experimental_functions;
        promql::functions::all().iter().map(|f| (f.name, !f.experimental || experimental)).collect()
    }

    /// Every operator, also those of matchers and of time, and every aggregation; whether a query may use it.
    pub fn operators(&self) -> Vec<(&'static str, bool)> {
        let experimental = self.config().parser.experimental_functions;
        let operators = BinaryOp::ALL.map(BinaryOp::as_str).into_iter().chain(["=~", "!~", "@"]);
        let aggregations = AggregateOp::ALL.map(|op| (op.as_str(), !op.is_experimental() || experimental));
        operators.map(|name| (name, true)).chain(aggregations).collect()
    }
}
