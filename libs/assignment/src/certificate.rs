//! A problem in plain numbers, its solution, and the proof that there is none better.
//!
//! The proof is linear programming duality (Burkard, Dell'Amico, Martello: *Assignment Problems*, SIAM 2009, section 4.1). Let every column
//! have a *price* and every row a *value*, such that
//!
//! 1. no price is negative,
//! 2. no row's value is above its unserved cost,
//! 3. no row's value is above cost + price of any of its candidates.
//!
//! Then no matching costs less than the sum of all values minus the sum of all prices: a row pays at least its value, less the price of the
//! column it takes, and each column is taken at most once. If moreover
//!
//! 4. each unmatched row's value is its unserved cost,
//! 5. each matched row's value is cost + price of its column,
//! 6. each unmatched column's price is 0,
//!
//! the solution costs exactly that bound: it is optimal. [`Solution::verify`] checks all six and looks at nothing of the solver.

use crate::graph::{COST_MAX, VERTICES_MAX};

/// A problem in plain numbers: rows and columns are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instance {
    /// How many columns there are.
    pub columns: usize,
    /// The rows.
    pub rows: Vec<InstanceRow>,
}

/// A row of an [`Instance`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceRow {
    /// The cost of leaving it unmatched.
    pub unserved: i64,
    /// The columns it may take, and the cost of each. Of several for the same column the cheapest counts.
    pub candidates: Vec<(usize, i64)>,
}

/// An optimal solution with its proof.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Solution {
    /// The column of each row.
    pub column_of: Vec<Option<usize>>,
    /// Costs of the taken candidates and of the unmatched rows together.
    pub cost: i64,
    /// The value of each row.
    pub values: Vec<i64>,
    /// The price of each column.
    pub prices: Vec<i64>,
}

/// Why something is not an optimal solution. Numbers are those of rows and columns in the [`Instance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not as many rows or columns as in the instance.
    #[error("the solution is one of another instance")]
    Shape,
    /// A row has a column that is none of its candidates.
    #[error("row {row} has column {column}, which is no candidate of it")]
    NotACandidate {
        /// The row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// Two rows have the same column.
    #[error("column {column} is taken twice")]
    TakenTwice {
        /// The column.
        column: usize,
    },
    /// The cost is not the sum of what was taken.
    #[error("the cost is {actual}, not {stated}")]
    Cost {
        /// What the solution says.
        stated: i64,
        /// The sum.
        actual: i64,
    },
    /// A price below 0, or above 0 without anybody who pays it.
    #[error("column {column} has the price {price}")]
    Price {
        /// The column.
        column: usize,
        /// Its price.
        price: i64,
    },
    /// A value that is above the unserved cost, or below it for an unmatched row.
    #[error("row {row} has the value {value}, but costs {unserved} unserved")]
    Value {
        /// The row.
        row: usize,
        /// Its value.
        value: i64,
        /// Its unserved cost.
        unserved: i64,
    },
    /// A candidate that is better than the row's value says, or one taken that is worse.
    #[error("row {row} has the value {value}, but can have column {column} for {offer}")]
    Offer {
        /// The row.
        row: usize,
        /// Its value.
        value: i64,
        /// The candidate.
        column: usize,
        /// Its cost and price.
        offer: i64,
    },
}

impl Solution {
    /// Checks that this solves `instance` at the least cost, by the six conditions of the [module](self).
    ///
    /// # Errors
    /// The first [`Flaw`] found.
    pub fn verify(&self, instance: &Instance) -> Result<(), Flaw> {
        if [self.column_of.len(), self.values.len()] != [instance.rows.len(); 2]
            || self.prices.len() != instance.columns
            || instance
                .rows
                .iter()
                .flat_map(|row| &row.candidates)
                .any(|candidate| candidate.0 >= instance.columns)
        {
            return Err(Flaw::Shape);
        }
        let mut taken = vec![false; instance.columns];
        let mut actual = 0;
        for (row, (description, &value)) in instance.rows.iter().zip(&self.values).enumerate() {
            let unserved = description.unserved;
            let is_unmatched = self.column_of[row].is_none();
            if value > unserved || is_unmatched && value != unserved {
                return Err(Flaw::Value { row, value, unserved });
            }
            for &(column, cost) in &description.candidates {
                let offer = cost + self.prices[column];
                if offer < value {
                    return Err(Flaw::Offer {
                        row,
                        value,
                        column,
                        offer,
                    });
                }
            }
            let Some(column) = self.column_of[row] else {
                actual += unserved;
                continue;
            };
            let costs = description.candidates.iter().filter(|candidate| candidate.0 == column);
            let Some(cost) = costs.map(|candidate| candidate.1).min() else {
                return Err(Flaw::NotACandidate { row, column });
            };
            if std::mem::replace(&mut taken[column], true) {
                return Err(Flaw::TakenTwice { column });
            }
            let offer = cost + self.prices[column];
            if offer != value {
                return Err(Flaw::Offer {
                    row,
                    value,
                    column,
                    offer,
                });
            }
            actual += cost;
        }
        for (column, (&price, taken)) in self.prices.iter().zip(taken).enumerate() {
            if price < 0 || price > 0 && !taken {
                return Err(Flaw::Price { column, price });
            }
        }
        if actual != self.cost {
            return Err(Flaw::Cost {
                stated: self.cost,
                actual,
            });
        }
        // Follows from the above; a second look at the arithmetic.
        debug_assert_eq!(
            self.cost,
            self.values.iter().sum::<i64>() - self.prices.iter().sum::<i64>()
        );
        debug_assert!(instance.columns <= VERTICES_MAX && self.prices.iter().all(|&price| price <= 2 * COST_MAX));
        Ok(())
    }
}
