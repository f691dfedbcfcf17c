//! Enrolment: the authority and what a board needs to prove who it is.

pub mod authority;
mod private;

pub use authority::{Authority, AuthorityError, CERTIFICATE_VALIDITY, Certified};
pub use private::PrivateFileError;
