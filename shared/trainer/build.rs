//! Lets the trainer find the LibTorch that it was linked with: beside itself in `lib/`, as a bundle for a board has
//! it, or where it lay at the build.

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{libtorch}/lib");
    }
}
