//! PDFs, made as small as they can be.

/// A PDF with a page for each of these texts. An empty one makes a page without text.
pub fn pdf(pages: &[&str]) -> Vec<u8> {
    let contents: Vec<String> = pages
        .iter()
        .map(|text| match text.is_empty() {
            true => "0 0 m 100 100 l S".into(),
            false => format!("BT /F 24 Tf 72 700 Td ({text}) Tj ET"),
        })
        .collect();
    of_objects(&objects(&contents, ""))
}

/// The objects of a PDF with a page for each of these contents. `resources`: what they have beside the font `/F`.
pub fn objects(contents: &[String], resources: &str) -> Vec<String> {
    let number = |page: usize| 4 + 2 * page;
    let kids: String = (0..contents.len())
        .map(|page| format!("{} 0 R ", number(page)))
        .collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!(
            "<< /Type /Pages /Kids [{kids}] /Count {} >>",
            contents.len()
        ),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    for (page, content) in contents.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R /Resources << /Font << /F 3 0 R >> {resources} >> >>",
            number(page) + 1
        ));
        objects.push(format!(
            "<< /Length {} >>\nstream\n{content}\nendstream",
            content.len()
        ));
    }
    objects
}

/// A PDF of these objects, numbered from 1 on; the first is the catalogue.
pub fn of_objects(objects: &[String]) -> Vec<u8> {
    let mut pdf = String::from("%PDF-1.7\n");
    let mut table = String::from("0000000000 65535 f \n");
    for (number, object) in (1..).zip(objects) {
        table += &format!("{:010} 00000 n \n", pdf.len());
        pdf += &format!("{number} 0 obj\n{object}\nendobj\n");
    }
    let (start, size) = (pdf.len(), objects.len() + 1);
    pdf += &format!(
        "xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    );
    pdf.into_bytes()
}
