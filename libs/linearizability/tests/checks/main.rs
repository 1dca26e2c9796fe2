//! The checker against histories made by hand, a checker that tries every order, and long histories of a real register.

mod brute;
mod by_hand;
mod drawing;
mod holders;
mod long;
mod machine;
mod shrinking;
mod speed;
mod workload;
