//! A small ISO 9660 image, with Joliet for names in lower case; pure.
//!
//! ECMA-119 for the descriptors and the directory, and the Joliet specification for the second of each. No crate
//! that is kept writes this; what is needed is one directory of a few small files.

/// Bytes of a sector.
const SECTOR: usize = 2048;
/// Sectors before the first descriptor (ECMA-119, 6.2.1).
const SYSTEM_AREA: usize = 16;
/// The path tables: little and big endian, of the plain and of the Joliet directory.
const TABLES: [usize; 4] = [19, 20, 21, 22];
/// The directories: plain and Joliet.
const DIRECTORIES: [usize; 2] = [23, 24];
/// The first sector of files.
const FILES: usize = 25;
/// The path table of a lone root directory has one record.
const TABLE_SIZE: u32 = 10;

/// One of the two trees that an image has.
#[derive(Clone, Copy, PartialEq)]
enum Tree {
    Plain,
    Joliet,
}

/// A file of the image's only directory.
pub struct File<'f> {
    /// Its name, in letters, digits, `-` and `.`.
    pub name: &'f str,
    /// All of its content.
    pub content: &'f [u8],
}

/// An image with this label (at most 16 letters) and these files.
pub fn image(label: &str, files: &[File<'_>]) -> Vec<u8> {
    let mut files: Vec<&File<'_>> = files.iter().collect();
    files.sort_by_key(|f| f.name);
    let mut at = FILES;
    let mut places: Vec<(&File<'_>, usize)> = Vec::new();
    for file in files {
        places.push((file, at));
        at += file.content.len().div_ceil(SECTOR).max(1);
    }
    let mut image = vec![0; at * SECTOR];
    let mut put = |sector: usize, bytes: &[u8]| {
        let start = sector * SECTOR;
        image[start..start + bytes.len()].copy_from_slice(bytes);
    };
    put(SYSTEM_AREA, &descriptor(Tree::Plain, label, at));
    put(SYSTEM_AREA + 1, &descriptor(Tree::Joliet, label, at));
    put(SYSTEM_AREA + 2, b"\xffCD001\x01");
    for (n, (table, directory)) in
        TABLES.iter().zip([DIRECTORIES[0], DIRECTORIES[0], DIRECTORIES[1], DIRECTORIES[1]]).enumerate()
    {
        put(*table, &path_table(directory as u32, n % 2 == 1));
    }
    for (sector, tree) in DIRECTORIES.into_iter().zip([Tree::Plain, Tree::Joliet]) {
        put(sector, &directory(tree, sector, &places));
    }
    for (file, sector) in places {
        put(sector, file.content);
    }
    image
}

/// A number as both orders of bytes, as ECMA-119 7.3.3 has it.
fn both32(n: usize) -> Vec<u8> {
    let n = n as u32;
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

fn both16(n: u16) -> Vec<u8> {
    [n.to_le_bytes(), n.to_be_bytes()].concat()
}

fn name(tree: Tree, text: &str) -> Vec<u8> {
    match tree {
        // Letters that ECMA-119 would not have; systems without Joliet read them all the same.
        Tree::Plain => {
            let dot = if text.contains('.') { "" } else { "." };
            format!("{}{dot};1", text.to_ascii_uppercase()).into_bytes()
        }
        Tree::Joliet => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    }
}

fn record(sector: usize, size: usize, folder: bool, name: &[u8]) -> Vec<u8> {
    let length = 33 + name.len() + (name.len() + 1) % 2;
    let mut all = vec![length as u8, 0];
    all.extend(both32(sector));
    all.extend(both32(size));
    // 1 January 1980: the same input is the same image.
    all.extend([80, 1, 1, 0, 0, 0, 0]);
    all.extend([if folder { 2 } else { 0 }, 0, 0]);
    all.extend(both16(1));
    all.push(name.len() as u8);
    all.extend(name);
    all.resize(length, 0);
    all
}

fn directory(tree: Tree, sector: usize, places: &[(&File<'_>, usize)]) -> Vec<u8> {
    // Itself and its parent, which for the root is itself too.
    let mut all = record(sector, SECTOR, true, &[0]);
    all.extend(record(sector, SECTOR, true, &[1]));
    for (file, at) in places {
        all.extend(record(*at, file.content.len(), false, &name(tree, file.name)));
    }
    all
}

fn path_table(directory: u32, big: bool) -> Vec<u8> {
    let mut all = vec![1, 0];
    all.extend(if big { directory.to_be_bytes() } else { directory.to_le_bytes() });
    all.extend(if big { [0, 1] } else { [1, 0] });
    all.extend([0, 0]);
    all
}

fn descriptor(tree: Tree, label: &str, sectors: usize) -> Vec<u8> {
    let mut all = vec![0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    let (number, tables, root) = match tree {
        Tree::Plain => (1, &TABLES[..2], DIRECTORIES[0]),
        Tree::Joliet => (2, &TABLES[2..], DIRECTORIES[1]),
    };
    let text = |text: &str, width: usize| -> Vec<u8> {
        match tree {
            Tree::Plain => format!("{text:width$}").into_bytes(),
            Tree::Joliet => {
                let units = format!("{text:0$}", width / 2);
                units.encode_utf16().flat_map(u16::to_be_bytes).chain([0]).take(width).collect()
            }
        }
    };
    put(0, &[number]);
    put(1, b"CD001\x01");
    put(8, &text("", 32));
    put(40, &text(label, 32));
    put(80, &both32(sectors));
    if tree == Tree::Joliet {
        // UCS-2 level 3.
        put(88, b"%/E");
    }
    put(120, &both16(1));
    put(124, &both16(1));
    put(128, &both16(SECTOR as u16));
    put(132, &both32(TABLE_SIZE as usize));
    put(140, &(tables[0] as u32).to_le_bytes());
    put(148, &(tables[1] as u32).to_be_bytes());
    put(156, &record(root, SECTOR, true, &[0]));
    // Volume set, publisher, preparer, application: 128 bytes each, then three names of files of 37.
    (190..702).step_by(128).for_each(|at| put(at, &text("", 128)));
    (702..813).step_by(37).for_each(|at| put(at, &text("", 37)));
    // Four times that are not said: sixteen digits and an offset.
    (813..881).step_by(17).for_each(|at| put(at, b"0000000000000000\0"));
    put(881, &[1]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(image: &[u8], at: usize) -> usize {
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn descriptors_and_directories_point_at_what_is_there() {
        let long = vec![7; 5000];
        let image = image(
            "cidata",
            &[File { name: "user-data", content: &long }, File { name: "meta-data", content: b"{}" }],
        );
        assert_eq!(image.len() % SECTOR, 0);
        assert_eq!(number(&image, 16 * SECTOR + 80) * SECTOR, image.len());
        assert_eq!(&image[16 * SECTOR + 40..16 * SECTOR + 46], b"cidata");
        for (descriptor, first) in [(16, b"META-DATA.;1".to_vec()), (17, name(Tree::Joliet, "meta-data"))] {
            let root = number(&image, descriptor * SECTOR + 156 + 2) * SECTOR;
            let mut at = root + 2 * 34;
            assert_eq!(&image[at + 33..at + 33 + first.len()], first);
            let content = number(&image, at + 2) * SECTOR;
            assert_eq!(&image[content..content + number(&image, at + 10)], b"{}");
            at += usize::from(image[at]);
            let content = number(&image, at + 2) * SECTOR;
            assert_eq!(&image[content..content + number(&image, at + 10)], long);
            assert_eq!(image[at + usize::from(image[at])], 0, "and no more");
        }
    }
}
