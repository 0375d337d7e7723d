mod localnet;
mod support;
