"""The header of a table, and what describes its rows and columns: the one place that decides it.

Comment lines, the delimiter, the header, the column that names the rows, columns that describe
genes, rows and columns that are no genes or samples.
"""

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from m1pipe.data.names import plain
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.text.lines import BOM, TextReader

ROWS_AHEAD = 20
_FEW_NAMES = 10
_SHORT_WORD, _NEAR, _AT_THE_EDGES = 4, 0.8, 20
_DELIMITERS = "\t,; "
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
ENSEMBL_ID = re.compile(r"ENS[A-Z]*[GTEP]\d{11}(\.\d+)?")

# Names, without case and all that is no letter or digit, of a column that names the rows ...
_INDEX_WORDS = frozenset(
    """gene genes geneid geneids genename genesymbol symbol symbols hgncsymbol hugosymbol name names
    ensembl ensemblid ensemblgeneid ensg entrez entrezid entrezgeneid transcript transcripts
    transcriptid targetid tx txid txname isoform isoformid feature features featureid id ids idref
    identifier probe probes probeid probeset sample samples sampleid sampleids samplename
    samplenames cell cells cellid barcode barcodes run runs runaccession accession geoaccession
    donor donorid patient patientid subject subjectid participant participantid individual caseid
    row rows rowname rownames index alias study srr gsm unnamed0""".split()
)
# ... of row numbers that programs write before it ...
_NUMBERING = frozenset(["", "index", "unnamed0", "row", "rownames", "rowname", "no", "nr"])
# ... and of columns that describe genes: by themselves, beside one of these, where they hold text.
_DESCRIBING = frozenset(
    """length genelength effectivelength efflength exonlength transcriptlength chr chrom chromosome
    chromosomename seqname seqnames strand genename genenames genesymbol symbol hgncsymbol
    externalgenename geneshortname entrezgeneid entrezid entrez entrezgene ncbigeneid ncbigene
    description genedescription transcriptid transcriptids transcriptname transcripttype geneid
    geneids ensemblid ensemblgeneid ensembl ensg biotype genebiotype genetype transcriptbiotype
    hugosymbol hgncid hgnc uniprot uniprotid refseq refseqid gccontent percentgc
    percentagegccontent cytoband locus nearestrefid classcode tssid trackingid featuretype
    genomiclocation probeid basemean log2foldchange lfcse pvalue pval padj adjpval fdr qvalue qval
    logfc logcpm foldchange aveexpr mean median variance""".split()
)
_BESIDE_OTHERS = frozenset(
    """start end stop width txstart txend genestart geneend startposition endposition gc band
    numexons exons exoncount coverage stat sd stdev cv""".split()
)
# ... and what a program says of a gene in one sample, in several units side by side.
_QUANTITIES = frozenset(
    """unstranded strandedfirst strandedsecond tpmunstranded fpkmunstranded fpkmuqunstranded tpm
    fpkm fpkmuq rpkm cpm coverage numreads estcounts expectedcount expectedcounts rawcount rawcounts
    counts count readcount normalizedcount scaledestimate abundance isopct conflo confhi fpkmconflo
    fpkmconfhi length efflength effectivelength""".split()
)
_AS_TEXT = frozenset(
    """type class source name gene id alias aliases synonym synonyms annotation product feature
    category title comment note notes reference ontology go kegg pathway family accession
    locustag targetid isoform transcript idref""".split()
)
_MONTH = r"(Mar|M\u00e4r|Mrz|Sep|Sept|Dec|Dez|Oct|Okt|Apr|Feb|Nov)"
_TO_DATE = re.compile(
    rf"(?i:\d{{1,2}}\.?[- ]{_MONTH}[a-z]*\.?)([- ]\d+)?|{_MONTH}-\d+|\d{{4}}-\d\d-\d\d( 00:00:00)?"
    r"|\d{1,2}(?P<mark>[./])\d{1,2}(?P=mark)\d\d(\d\d)?|\d([.,]\d+)?E\+\d+"
)
_NO_GENES = re.compile(
    r"__\w+|N_(unmapped|multimapping|noFeature|ambiguous)|Unassigned_\w+"
    r"|no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique"
)
_SUMS = frozenset("total totals sum grandtotal rowsum rowsums colsum colsums".split())
_OF_SAMPLES = re.compile(
    r"age|sex|gender|batch|bmi|weight|height|rin|status|label|group|class|target|condition|disease"
    r"|diagnosis|treatment|tissue|celltype|cluster|donor\w*|patient\w*|subject\w*|race|ethnicity"
    r"|stage|grade|survival|os|ostime|osstatus|dead|death|event|dose|time|timepoint|day|days\w*"
    r"|months?|years?|smok\w+|alcohol|pmi|replicate|plate|lane|center|site|country|region|score"
    r"|outcome|response|responder|case|control|ncount\w*|nfeature\w*|totalcounts|percentmt"
    r"|libsize|librarysize|depth|readcount|purity|isfemale|ismale|male|female|vitalstatus"
)


@dataclass(frozen=True)
class Header:
    """What the first lines of a table say.

    Attributes
    ----------
    delimiter : str
    corner : str
        Name above the names of the rows; empty where there is none.
    columns : list of str
        Names of the columns that hold values.
    places : list of int
        Field of each of them.
    name_field : int
        Field that names the rows.
    n_fields : int
        That every row has.
    trailing : int
        Fields at the end of every row that have no name and hold nothing.
    """

    delimiter: str
    corner: str
    columns: list[str]
    places: list[int]
    name_field: int
    n_fields: int
    trailing: int

    @property
    def extra(self) -> list[int]:
        """Fields, but the first, that hold neither values nor anything that is kept."""
        fields = {*range(1, self.n_fields)} - {*self.places}
        return sorted(fields)


def skip_comments(reader: TextReader, first_line: int) -> tuple[bytes, int]:
    """The header line and its number: lines that begin with # before it are left out.

    The last of them is the header itself where it has as many fields as the line below.

    Parameters
    ----------
    reader : TextReader
    first_line : int
        Number of its next line.
    """
    number, held = first_line, b""
    line = (reader.line() or b"").removeprefix(BOM)
    if re.fullmatch(rb"sep=.", line.strip(b'"')):  # that Excel writes and reads
        line, number = reader.line() or b"", number + 1
    while line.startswith(b"#") or (not line.strip() and held):
        held, following = line, reader.line()
        if following is None:
            return line, number
        if not following.startswith(b"#") and _names_row(held, following):
            reader.back([following])
            return held.lstrip(b"# "), number
        line, number = following, number + 1
    return line, number


def _names_row(comment: bytes, row: bytes) -> bool:
    """Whether a comment is the header of the line below: as many fields, numbers below."""
    for delimiter in (b"\t", b",", b";"):
        names, fields = comment.split(delimiter), row.split(delimiter)
        if len(names) == len(fields) > 1:
            return any(_is_number(field.decode("latin-1")) for field in fields[1:])
    return False


def read_header(
    line: bytes,
    rows: Sequence[bytes],
    where: str,
    below: Sequence[str],
    *,
    numbering: Sequence[str] = (),
) -> Header:
    """What the header line and the first rows say together.

    Parameters
    ----------
    line : bytes
        The header.
    rows : sequence of bytes
        The first lines below it.
    where : str
        File and line of the header, for messages.
    below : sequence of str
        The same of the rows.
    numbering : sequence of str
        Further names of a first column that only counts the rows.

    Raises
    ------
    InputError
        If there is no header, or names and fields do not go together.
    """
    delimiter = find_delimiter(line, rows, where)
    cells = [cell.strip() for cell in split(line, delimiter, where)]
    table = [
        [field.strip() for field in split(row, delimiter, place)]
        for row, place in zip(rows, below, strict=True)
        if not is_blank(row, delimiter)
    ]
    if not table:
        raise InputError(f"{where}: expected rows below the header; found empty ones")
    n_fields = len(table[0])
    equal = all(len(fields) == n_fields for fields in table)
    ended = min(map(_empty_at_end, table)) if equal else 0
    trailing = min(_empty_at_end(cells), ended, n_fields - 2) if len(cells) == n_fields else 0
    short = False
    if len(cells) == n_fields - 1:
        trailing, short = _one_short(cells, table, ended > 0, where)
    elif trailing > 0 or (len(cells) == n_fields + 1 and cells[-1] == ""):
        cells = cells[: -max(trailing, 1)]
    named = ["", *cells] if short else cells
    first = 1 if _is_numbered(named, table, {*_NUMBERING, *numbering}) else 0
    _refuse_numbers(named, table, short, where)
    places = list(range(first + 1, len(named)))
    return Header(
        delimiter=delimiter,
        corner=named[first],
        columns=[named[place] for place in places],
        places=places,
        name_field=first,
        n_fields=len(named) + trailing,
        trailing=trailing,
    )


def is_blank(line: bytes, delimiter: str) -> bool:
    """Whether a line holds nothing, or delimiters alone."""
    return not line.strip().strip(delimiter.encode() + b" ")


def _empty_at_end(fields: Sequence[str]) -> int:
    """Fields at the end that hold nothing."""
    return next((n for n, field in enumerate(reversed(fields)) if field), len(fields))


def _one_short(
    cells: list[str], table: list[list[str]], ended: bool, where: str
) -> tuple[int, bool]:
    """Whether a header with one name too few lacks a trailing delimiter, or the first name."""
    is_index = plain(cells[0]) in _INDEX_WORDS
    if ended:
        if is_index or cells[0] == "":
            return 1, False
        raise InputError(
            f"{where}: expected a name for every column; found {len(cells)} names for "
            f"{len(table[0])} fields, of which the last is always empty: take the delimiter off "
            "the ends of the lines, or name the first column too"
        )
    if is_index and not counts_rows([fields[0] for fields in table]):
        raise InputError(
            f"{where}: expected a name for every column; found {len(cells)} names for "
            f"{len(table[0])} fields, the first of them {cells[0]!r}, which names the rows: one "
            "name is missing"
        )
    if _run_together(cells):
        text = (
            f"{where}: the header has one name fewer than the rows have fields, as R writes it, so "
            f"that {cells[0]!r} names the first column behind the rows' names: are these two names?"
        )
        warnings.warn(text, M1Warning, stacklevel=5)
    return 0, True


def _run_together(cells: list[str]) -> bool:
    """Whether the first name may be the rows' own name with the first column's behind it."""
    first, others = plain(cells[0]), [_shape(plain(cell)) for cell in cells[1:]]
    behind = [first[len(w) :] for w in _INDEX_WORDS if len(w) > 1 and first.startswith(w)]
    if not others:
        return any(behind)
    return any(_shape(rest) == others[0] for rest in behind if rest)


def counts_rows(names: Sequence[str]) -> bool:
    """Whether names are 0, 1, 2, ... or 1, 2, 3, ..."""
    if not all(name.isdigit() and name.isascii() and len(name) < 10 for name in names):
        return False
    numbers = [int(name) for name in names]
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _is_numbered(named: list[str], table: list[list[str]], numbering: set[str]) -> bool:
    """Whether the first column only counts the rows, and the second names them."""
    if len(named) < 3 or plain(named[0]) not in numbering or plain(named[1]) not in _INDEX_WORDS:
        return False
    second = [fields[1] for fields in table if len(fields) > 1]
    ids = all(name.isdigit() for name in second) and len(set(second)) == len(second)
    named_by = ids or not any(map(_is_number, second))
    return counts_rows([fields[0] for fields in table]) and named_by


def _refuse_numbers(named: list[str], table: list[list[str]], short: bool, where: str) -> None:
    """Refuse a header that is a row of numbers: names may be whole numbers, levels hardly are."""
    cells = named[1:]
    if short or not cells or not all(_is_number(cell) for cell in cells):
        return
    corner = named[0]
    whole = all(cell.isdigit() for cell in cells)
    alike = sum(_shape(fields[0]) == _shape(corner) for fields in table) > len(table) / 2
    is_name = corner == "" or plain(corner) in _INDEX_WORDS
    if whole and len(set(cells)) == len(cells) and is_name and not alike:
        return
    raise InputError(
        f"{where}: expected names in the header; found numbers ({', '.join(cells[:3])}): the table "
        "has no header: add one; where these are names, write id above the names of the rows"
    )


def _shape(name: str) -> str:
    """A name with all its numbers alike."""
    return re.sub(r"\d+", "0", name)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def find_delimiter(line: bytes, rows: Sequence[bytes], where: str) -> str:
    """Tab, comma, semicolon or blank: the first that cuts header and rows alike."""
    text = line.decode("latin-1")
    below = [row.decode("latin-1") for row in rows if row.strip()]
    if not below and any(delimiter in text for delimiter in "\t,;"):
        raise InputError(f"{where}: expected rows below the header; found the header only")
    above = [d for d in _DELIMITERS if d in _outside_quotes(text)]
    only_below = [d for d in _DELIMITERS if below and d in _outside_quotes(below[0])]
    candidates = above if set(above) - {" "} else only_below
    for delimiter in candidates:
        widths = {len(_fields(row, delimiter)) for row in below}
        n_names = len(_fields(text, delimiter))
        if len(widths) == 1 and n_names in (fitting := (min(widths), min(widths) - 1)):
            if max(fitting) > 1:
                return delimiter
    first = next(iter(above), None)
    if first is None or first == " ":
        raise InputError(
            f"{where}: expected names separated by tabs or commas; found {text[:40]!r}"
        )
    return first


def split(line: bytes, delimiter: str, where: str) -> list[str]:
    """Fields of a line, quotes taken off.

    Raises
    ------
    InputError
        As `decode`, or if a quote opens a field and does not close it.
    """
    try:
        return _fields(decode(line, where), delimiter, strict=True)
    except csv.Error:
        raise InputError(
            f"{where}: expected quotes in pairs around a field; found one alone: close it, or "
            "double it within quotes"
        ) from None


def _fields(text: str, delimiter: str, *, strict: bool = False) -> list[str]:
    if delimiter == " ":
        row = csv.reader([text.strip()], delimiter=" ", skipinitialspace=True, strict=strict)
        return next(row, [""])
    if '"' in text:
        return next(csv.reader([text], delimiter=delimiter, strict=strict))
    return text.split(delimiter)


def _outside_quotes(text: str) -> str:
    return re.sub(r'"[^"]*"', "", text)


def decode(text: bytes, where: str) -> str:
    """Text of UTF-8.

    Raises
    ------
    InputError
        If it is of another encoding, or a carriage return stands in it.
    """
    if b"\r" in text:
        raise InputError(
            f"{where}: expected a line end; found a carriage return inside the line: take it out "
            "(tr -d '\\r')"
        )
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected UTF-8 text: {error}: save it as UTF-8, or iconv -f latin1 -t utf8"
        ) from None


def names_left_out(corner: str, columns: Sequence[str], names: Sequence[str]) -> str:
    """Why what is taken for names of rows is none; empty where it may be.

    Parameters
    ----------
    corner : str
        What stands above them.
    columns : sequence of str
        Names of the other columns.
    names : sequence of str
    """
    if not corner or plain(corner) in _INDEX_WORDS or not all(map(_is_number, names)):
        return ""
    alike = _shape(corner) == _shape(columns[0])
    if alike or not all(name.isdigit() for name in names):
        return f"the column {corner!r} holds numbers ({', '.join(names[:3])})"
    return ""


def several_of_a_sample(columns: Sequence[str]) -> list[list[str]]:
    """Columns that are several quantities of the same sample, such as TPM beside FPKM.

    Parameters
    ----------
    columns : sequence of str

    Returns
    -------
    list of list of str
        Those of every sample that has more than one.

    Examples
    --------
    >>> several_of_a_sample(["S1_TPM", "S1_FPKM", "S2_TPM", "counts.S3"])
    [['S1_TPM', 'S1_FPKM']]
    """
    of_sample: dict[str, list[str]] = {}
    for name in columns:
        sample = _without_quantity(name)
        if sample is not None:
            of_sample.setdefault(sample, []).append(name)
    return [names for names in of_sample.values() if len(names) > 1]


def _without_quantity(name: str) -> str | None:
    """A column's name without the quantity at its end or beginning; None where there is none."""
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]
    for n in range(min(len(parts), 4), 0, -1):
        for words, sample in ((parts[-n:], parts[:-n]), (parts[:n], parts[n:])):
            if "".join(words) in _QUANTITIES:
                return ".".join(sample)
    return None


def _describes(word: str) -> bool:
    """Whether a plain name is sure to describe genes: a known one, or a length in some unit."""
    return word in _DESCRIBING or re.fullmatch(r"\w*length(bp|kb|nt|bases)?", word) is not None


def describing_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns that describe genes, among those of a table with genes as rows.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequence of str, each of length n_columns
        The first rows.

    Returns
    -------
    list of str
        Known by their names; some of these names only beside others, or above text.
    """
    sure = [name for name in columns if _describes(plain(name))]
    found = []
    for place, name in enumerate(columns):
        word = plain(name)
        holds_text = any(row[place].strip() and not _is_number(row[place]) for row in rows)
        if name in sure or (word in _BESIDE_OTHERS and sure) or (word in _AS_TEXT and holds_text):
            found.append(name)
    return found if len(found) < len(columns) else []


def doubtful_samples(columns: Sequence[str]) -> list[str]:
    """Columns of a table of samples that may be none: nearly named like an annotation, or numbers.

    Parameters
    ----------
    columns : sequence of str
        Without those that are known to describe genes.
    """
    numbers = [name for name in columns if _is_number(name)]
    odd = numbers if len(numbers) < len(columns) / 2 else []
    words = [word for word in (*_DESCRIBING, *_BESIDE_OTHERS) if len(word) > _SHORT_WORD]
    edges = [*columns[:_AT_THE_EDGES], *columns[_AT_THE_EDGES:][-_AT_THE_EDGES:]]
    near = [name for name in edges if get_close_matches(plain(name), words, 1, _NEAR)]
    return list(dict.fromkeys([*odd, *near]))


def is_measure(name: str) -> bool:
    """Whether a column that describes genes holds numbers by its name: a length, a place."""
    word = plain(name)
    return word in _BESIDE_OTHERS or "length" in word or word in ("gccontent", "percentgc")


def no_genes(names: Sequence[str]) -> np.ndarray:
    """Which names are no genes: counters of programs, totals.

    Parameters
    ----------
    names : sequence of str, length n

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    return np.array([bool(_NO_GENES.fullmatch(n)) or plain(n) in _SUMS for n in names], dtype=bool)


def sums_of_others(names: Sequence[str]) -> np.ndarray:
    """Which names of samples say that they are sums over the others, bool, shape (n,)."""
    return np.array([plain(name) in _SUMS for name in names], dtype=bool)


def named_like_annotations(names: Sequence[str]) -> np.ndarray:
    """Which names of genes are words for samples, such as age and sex, bool, shape (n,)."""
    return np.array([bool(_OF_SAMPLES.fullmatch(plain(name))) for name in names], dtype=bool)


def turned_to_dates(names: Sequence[str]) -> list[str]:
    """Names that Excel made of genes such as SEPT2, MARCH1 and 2310009E13Rik: 2-Sep, 2.31E+13."""
    return [name for name in names if _TO_DATE.fullmatch(name)]


def unlike_others(names: Sequence[str]) -> np.ndarray:
    """The few names that are no Ensembl ids where nearly all are, bool, shape (n,)."""
    known = np.array([ENSEMBL_ID.match(name) is not None for name in names], dtype=bool)
    few = 0 < (~known).sum() <= min(_FEW_NAMES, known.sum() / 9)
    return ~known if few else np.zeros(len(names), dtype=bool)


def is_index(name: str) -> bool:
    """Whether a name is a word for the names of rows."""
    return plain(name) in _INDEX_WORDS


def names_a_gene(name: str) -> bool:
    """Whether a cell is an Ensembl id, which no header is."""
    return ENSEMBL_ID.fullmatch(name) is not None
