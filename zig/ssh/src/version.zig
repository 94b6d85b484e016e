//! The version, once: build.zig.zon repeats it and the build compares.

pub const version = "0.1.0";
