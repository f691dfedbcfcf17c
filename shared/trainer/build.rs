//! Lets the trainer find the LibTorch that it was linked with: beside itself in `lib/`, as a bundle for a board has
//! it, or where it lay at the build.

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
    // Only for programs of this machine: what is built for a board must not name a path of the machine that built it.
    let native = std::env::var("HOST") == std::env::var("TARGET");
    if let Some(libtorch) = std::env::var("LIBTORCH").ok().filter(|_| native) {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{libtorch}/lib");
    }
}
