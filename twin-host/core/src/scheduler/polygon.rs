//! A convex region of the plane, cut smaller half-plane by half-plane: where the best pair of prices still can be.

/// A convex polygon, its corners in order.
#[derive(Debug, Clone)]
pub(crate) struct Polygon {
    corners: Vec<[f64; 2]>,
    spare: Vec<[f64; 2]>,
}

impl Polygon {
    /// The unit square.
    pub(crate) fn unit() -> Self {
        let corners = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        Self { corners, spare: Vec::new() }
    }

    /// Keeps the part where `normal · (x - point) ≥ 0`; leaves the polygon as it was if nothing would be left.
    pub(crate) fn cut(&mut self, point: [f64; 2], normal: [f64; 2]) {
        let side = |x: [f64; 2]| normal[0] * (x[0] - point[0]) + normal[1] * (x[1] - point[1]);
        self.spare.clear();
        let mut previous = self.corners[self.corners.len() - 1];
        let mut previous_side = side(previous);
        for &corner in &self.corners {
            let corner_side = side(corner);
            if (corner_side >= 0.0) != (previous_side >= 0.0) {
                let t = previous_side / (previous_side - corner_side);
                self.spare
                    .push([previous[0] + t * (corner[0] - previous[0]), previous[1] + t * (corner[1] - previous[1])]);
            }
            if corner_side >= 0.0 {
                self.spare.push(corner);
            }
            (previous, previous_side) = (corner, corner_side);
        }
        if self.spare.len() >= 3 {
            std::mem::swap(&mut self.corners, &mut self.spare);
        }
    }

    /// The centre of gravity: a cut through it takes away at least 1 - 1/e of the area's complement, 37 %.
    pub(crate) fn centroid(&self) -> [f64; 2] {
        let origin = self.corners[0];
        let (mut area, mut sum) = (0.0, [0.0, 0.0]);
        for pair in self.corners[1..].windows(2) {
            let a = [pair[0][0] - origin[0], pair[0][1] - origin[1]];
            let b = [pair[1][0] - origin[0], pair[1][1] - origin[1]];
            let double = a[0] * b[1] - a[1] * b[0];
            area += double;
            sum[0] += double * (a[0] + b[0]);
            sum[1] += double * (a[1] + b[1]);
        }
        if area.abs() > f64::MIN_POSITIVE * 1e10 {
            return [origin[0] + sum[0] / (3.0 * area), origin[1] + sum[1] / (3.0 * area)];
        }
        let count = self.corners.len() as f64;
        let mean = |axis: usize| self.corners.iter().map(|corner| corner[axis]).sum::<f64>() / count;
        [mean(0), mean(1)]
    }

    /// Whether the point lies inside or on the edge.
    pub(crate) fn contains(&self, point: [f64; 2]) -> bool {
        let mut previous = self.corners[self.corners.len() - 1];
        self.corners.iter().all(|&corner| {
            let edge = [corner[0] - previous[0], corner[1] - previous[1]];
            let inside = edge[0] * (point[1] - previous[1]) - edge[1] * (point[0] - previous[0]) >= 0.0;
            previous = corner;
            inside
        })
    }

    /// The largest `normal · (x - point)` over the polygon.
    pub(crate) fn reach(&self, point: [f64; 2], normal: [f64; 2]) -> f64 {
        let along = |x: &[f64; 2]| normal[0] * (x[0] - point[0]) + normal[1] * (x[1] - point[1]);
        self.corners.iter().map(along).fold(f64::NEG_INFINITY, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_halves_the_square() {
        let mut square = Polygon::unit();
        square.cut([0.5, 0.5], [1.0, 0.0]);
        assert_eq!(square.centroid(), [0.75, 0.5]);
        assert!(square.contains([0.6, 0.1]) && !square.contains([0.4, 0.1]));
        assert!((square.reach([0.0, 0.0], [1.0, 1.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn centroid_cuts_close_in_on_a_point() {
        let target = [0.137, 0.802];
        let mut region = Polygon::unit();
        for _ in 0..120 {
            let at = region.centroid();
            let towards = [target[0] - at[0], target[1] - at[1]];
            region.cut(at, towards);
        }
        let found = region.centroid();
        assert!((found[0] - target[0]).hypot(found[1] - target[1]) < 1e-6, "{found:?}");
    }
}
