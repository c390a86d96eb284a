"""What names of rows and columns mean: genes and samples, what describes them, what is neither."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np

from m1pipe.data.names import plain

_FEW_NAMES = 10
_SHORT_WORD, _NEAR, _AT_THE_EDGES = 4, 0.8, 20
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
ENSEMBL_ID = re.compile(r"ENS[A-Z]*[GTEP]\d{11}(\.\d+)?")

# Names, without case and all that is no letter or digit, of a column that names the rows ...
INDEX_WORDS = frozenset(
    """gene genes geneid geneids genename genesymbol symbol symbols hgncsymbol hugosymbol name names
    ensembl ensemblid ensemblgeneid ensg entrez entrezid entrezgeneid transcript transcripts
    transcriptid targetid tx txid txname isoform isoformid feature features featureid id ids idref
    identifier probe probes probeid probeset sample samples sampleid sampleids samplename
    samplenames cell cells cellid barcode barcodes run runs runaccession accession geoaccession
    donor donorid patient patientid subject subjectid participant participantid individual caseid
    row rows rowname rownames index alias study srr gsm unnamed0""".split()
)
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


def is_index(name: str) -> bool:
    """Whether a name is a word for the names of rows."""
    return plain(name) in INDEX_WORDS


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, in either notation."""
    return _NUMBER.fullmatch(cell.strip()) is not None


def shape(name: str) -> str:
    """A name with all its numbers alike: GSM12 is like GSM7."""
    return re.sub(r"\d+", "0", name)


def counts_rows(names: Sequence[str]) -> bool:
    """Whether names are 0, 1, 2, ... or 1, 2, 3, ..."""
    if not all(name.isdigit() and name.isascii() and len(name) < 10 for name in names):
        return False
    numbers = [int(name) for name in names]
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def names_a_gene(name: str) -> bool:
    """Whether a cell is an Ensembl id, which no header is."""
    return ENSEMBL_ID.fullmatch(name) is not None


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
    if not corner or is_index(corner) or not all(map(is_number, names)):
        return ""
    alike = shape(corner) == shape(columns[0])
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
        holds_text = any(row[place].strip() and not is_number(row[place]) for row in rows)
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
    numbers = [name for name in columns if is_number(name)]
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


def doubtful_names(genes: Iterable[object]) -> list[str]:
    """What names of genes are taken for, where they are none: dates, numbers of rows."""
    names, doubts = [str(gene) for gene in genes], []
    dates = turned_to_dates(names)
    if dates:
        doubts.append(
            f"{len(dates)} gene names are dates or numbers ({', '.join(dates[:3])}): Excel turned "
            "names such as SEPT2 and MARCH1 into them; take the table from its source"
        )
    if len(names) > 1 and counts_rows(names):
        doubts.append(
            f"the genes are named {names[0]}, {names[1]}, ...: are these numbers of rows? "
            "--gene-names COLUMN names them by an annotation"
        )
    return doubts
