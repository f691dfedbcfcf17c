//! Lets the trainer find the LibTorch that it was linked with: beside itself in `lib/`, as a bundle for a board has
//! it, or where it lay at the build. A LibTorch for CUDA is linked whole: nothing here names a symbol of its GPU
//! part, and the linker would leave it out, whereupon LibTorch would see no GPU anywhere.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
    // Only for programs of this machine: what is built for a board must not name a path of the machine that built it.
    let native = std::env::var("HOST") == std::env::var("TARGET");
    if let Some(libtorch) = std::env::var("LIBTORCH").ok().filter(|_| native) {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{libtorch}/lib");
        if Path::new(&libtorch).join("lib/libtorch_cuda.so").exists() {
            println!("cargo::rustc-link-arg-bins=-L{libtorch}/lib");
            for argument in ["--no-as-needed", "-ltorch_cuda", "--as-needed"] {
                let for_linker = if argument.starts_with("--") { "-Wl," } else { "" };
                println!("cargo::rustc-link-arg-bins={for_linker}{argument}");
            }
        }
    }
}
