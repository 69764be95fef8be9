//! Writes the safetensors format: eight bytes of header length, a JSON header, then the tensors one after another.

use serde_json::{Map, Value, json};

/// A named tensor of 32-bit floats, row by row.
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Tensor {
    pub fn new(name: &str, shape: &[usize], data: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            data,
        }
    }

    /// A tensor with the same number everywhere.
    pub fn filled(name: &str, shape: &[usize], value: f32) -> Self {
        Self::new(name, shape, vec![value; shape.iter().product()])
    }
}

/// The file's bytes. The `format` that mlx looks for is part of the header.
pub fn encode(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "mlx" }));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.data.len() * size_of::<f32>();
        let entry = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data starts at a multiple of eight; the format allows spaces at the end of the header for that.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = Vec::with_capacity(8 + header.len() + end);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    for tensor in tensors {
        for value in &tensor.data {
            file.extend(value.to_le_bytes());
        }
    }
    file
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Reads a file back without trusting the writer: every offset is checked.
    pub fn decode(file: &[u8]) -> Vec<Tensor> {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(length % 8, 0);
        let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let data = &file[8 + length..];
        let mut covered = 0;
        let mut tensors = Vec::new();
        for (name, entry) in header.iter().filter(|(name, _)| *name != "__metadata__") {
            assert_eq!(entry["dtype"], "F32");
            let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).unwrap();
            let [start, end]: [usize; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            assert_eq!(
                start, covered,
                "{name} does not start where the one before ends"
            );
            assert_eq!(end - start, shape.iter().product::<usize>() * 4, "{name}");
            covered = end;
            let values = data[start..end]
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            tensors.push(Tensor::new(name, &shape, values));
        }
        assert_eq!(covered, data.len(), "bytes that no tensor owns");
        tensors
    }

    #[test]
    fn what_is_written_reads_back() {
        let tensors = [
            Tensor::new("a", &[2, 3], vec![1.0, -2.0, 0.5, 0.0, 3.25, -0.0]),
            Tensor::filled("layers.0.ünïcode", &[5], 7.0),
            Tensor::filled("empty", &[0, 4], 1.0),
        ];
        let read = decode(&encode(&tensors));
        assert_eq!(read.len(), tensors.len());
        for (read, written) in read.iter().zip(&tensors) {
            assert_eq!(
                (&read.name, &read.shape, &read.data),
                (&written.name, &written.shape, &written.data)
            );
        }
    }

    #[test]
    fn the_header_says_mlx() {
        let file = encode(&[Tensor::filled("a", &[1], 0.0)]);
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        assert_eq!(header["__metadata__"]["format"], "mlx");
    }
}
