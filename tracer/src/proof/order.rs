//! Chance in the order of a pass.
//!
//! What moves while it is looked at is missed if it moves as we do. So no two passes go through the heap and the stacks in the
//! same order; and with the same seed a run does what another did. Knows nothing of what is put in order.

/// Numbers of the kind of SplitMix64: <https://prng.di.unimi.it/splitmix64.c>. They need not be secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order(u64);

impl Order {
    /// That of pass number `pass` of a run.
    pub(super) fn of_pass(seed: u64, pass: u32) -> Self {
        let mut order = Self(seed ^ u64::from(pass).wrapping_mul(0xd6e8_feb8_6659_fd93));
        order.next();
        order
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True or false.
    pub(super) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// A number below `bound`; 0 for 0.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Begins anywhere in `items`, in one direction or the other: neighbours stay neighbours.
    pub(super) fn turn<T>(&mut self, items: &mut [T]) {
        let by = self.below(items.len());
        items.rotate_left(by);
        if self.coin() {
            items.reverse();
        }
    }

    /// Any order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shuffled(seed: u64, pass: u32) -> Vec<u32> {
        let mut items: Vec<u32> = (0..100).collect();
        Order::of_pass(seed, pass).shuffle(&mut items);
        items
    }

    #[test]
    fn a_seed_gives_the_same_order_again_and_each_pass_another() {
        assert_eq!(shuffled(7, 0), shuffled(7, 0));
        let mut orders: Vec<Vec<u32>> = (0..50).map(|pass| shuffled(7, pass)).collect();
        orders.sort();
        orders.dedup();
        assert_eq!(orders.len(), 50);
        let mut sorted = shuffled(7, 3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>(), "nothing is lost");
    }

    #[test]
    fn a_turn_keeps_neighbours_together() {
        let mut begins = std::collections::BTreeSet::new();
        for pass in 0..200 {
            let mut items: Vec<u32> = (0..10).collect();
            Order::of_pass(1, pass).turn(&mut items);
            let steps: Vec<u32> = items.windows(2).map(|pair| (pair[1] + 10 - pair[0]) % 10).collect();
            assert!(steps.iter().all(|step| *step == 1) || steps.iter().all(|step| *step == 9), "{items:?}");
            begins.insert((items[0], steps[0]));
        }
        assert_eq!(begins.len(), 20, "each begin in each direction");
    }

    #[test]
    fn nothing_has_an_order() {
        let mut order = Order::of_pass(1, 1);
        order.turn::<u8>(&mut []);
        order.shuffle::<u8>(&mut []);
    }
}
