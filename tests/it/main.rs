mod embedded;
mod localnet;
mod support;
