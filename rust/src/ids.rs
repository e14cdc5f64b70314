//! A set of trade ids as ranges: a feed without holes costs two numbers, however long it runs.

/// Ranges beyond this many are given up, oldest first.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub struct Ids {
    ranges: Vec<(i64, i64)>, // inclusive, ascending, not touching
}

impl Ids {
    /// Adds `id`; returns false if it was there.
    pub fn insert(&mut self, id: i64) -> bool {
        match self.ranges.last_mut() {
            Some(last) if id == last.1 + 1 => {
                last.1 = id;
                return true;
            }
            Some(last) if id > last.1 => {
                self.ranges.push((id, id));
                if self.ranges.len() > MOST {
                    self.ranges.drain(..MOST / 10);
                }
                return true;
            }
            Some(last) if id >= last.0 => return false,
            None => {
                self.ranges.push((id, id));
                return true;
            }
            _ => {}
        }
        let at = self.ranges.partition_point(|range| range.1 < id);
        if self.ranges[at].0 <= id {
            return false;
        }
        let touches_left = at > 0 && self.ranges[at - 1].1 + 1 == id;
        let touches_right = self.ranges[at].0 == id + 1;
        match (touches_left, touches_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = id,
            (false, true) => self.ranges[at].0 = id,
            (false, false) => self.ranges.insert(at, (id, id)),
        }
        true
    }

    /// Tells whether every id from `low` to `high` is there; true when there is none between them.
    pub fn cover(&self, low: i64, high: i64) -> bool {
        if low > high {
            return true;
        }
        let at = self.ranges.partition_point(|range| range.1 < low);
        self.ranges.get(at).is_some_and(|range| range.0 <= low && high <= range.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_gives_the_same_ranges() {
        for order in [[1, 2, 3, 7, 8], [8, 3, 1, 7, 2], [3, 2, 1, 8, 7], [7, 1, 3, 8, 2]] {
            let mut ids = Ids::default();
            for id in order {
                assert!(ids.insert(id));
                assert!(!ids.insert(id));
            }
            assert_eq!(ids.ranges, [(1, 3), (7, 8)]);
            assert!(ids.cover(1, 3) && ids.cover(8, 8) && ids.cover(5, 4));
            assert!(!ids.cover(3, 7) && !ids.cover(4, 6) && !ids.cover(0, 1) && !ids.cover(8, 9));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut ids = Ids::default();
        for id in 0..3 * MOST as i64 {
            ids.insert(2 * id);
        }
        assert!(ids.ranges.len() <= MOST);
    }
}
