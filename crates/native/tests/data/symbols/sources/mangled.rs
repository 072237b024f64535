#![no_std]
#![crate_type = "lib"]
pub mod shapes {
    pub trait Area {
        fn area(&self) -> u64;
    }
    pub struct Pair<T>(pub T, pub T);
    impl Area for Pair<u32> {
        #[inline(never)]
        fn area(&self) -> u64 {
            u64::from(self.0) + u64::from(self.1)
        }
    }
}
#[unsafe(no_mangle)]
pub fn call_area(pair: &shapes::Pair<u32>) -> u64 {
    shapes::Area::area(pair) + generic::<i8>(3)
}
#[inline(never)]
fn generic<T: Into<i64>>(value: T) -> u64 {
    value.into() as u64
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
