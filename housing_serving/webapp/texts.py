"""Every text of the web app, in each of its languages; placeholders in braces have the same names in all."""

from dataclasses import dataclass
from typing import Final, Literal

Language = Literal["en", "es"]


@dataclass(frozen=True)
class Texts:
    """The texts of one language; names of fields, categories and problems are the API's."""

    language_label: str
    title: str
    # Pages.
    price_page: str
    batch_page: str
    model_page: str
    # Service status.
    ready: str
    no_model: str
    unavailable: str
    unknown: str
    waiting: str
    version_changed: str
    back_again: str
    api_refused: str
    # Map.
    map_label: str
    map_role: str
    map_help: str
    west: str
    zoom_in: str
    zoom_out: str
    legend: str
    known_prices: str
    # Price page.
    price_heading: str
    price_intro: str
    examples: str
    example_berkeley: str
    example_fresno: str
    example_malibu: str
    form_heading: str
    unknown_bedrooms: str
    ratios: str
    rooms_per_household: str
    bedrooms_per_room: str
    population_per_household: str
    bedrooms_per_household: str
    not_known: str
    mend_form: str
    estimate: str
    interval: str
    interval_label: str
    answered_by: str
    dollars: str
    warning_intro: str
    drivers_heading: str
    drivers_intro: str
    drivers_label: str
    no_explanation: str
    raises: str
    lowers: str
    contribution: str
    feature: str
    others: str
    nearby_heading: str
    nearby_summary: str
    nearby_label: str
    no_neighbours: str
    above: str
    below: str
    same: str
    this_place: str
    as_table: str
    distance: str
    # Batch page.
    batch_heading: str
    batch_intro: str
    template: str
    upload: str
    unreadable: str
    empty_file: str
    missing_columns: str
    too_many_rows: str
    rows_good: str
    rows_bad: str
    rows_bad_listed: str
    row: str
    column: str
    value: str
    problem: str
    price_rows: str
    pricing: str
    stopped: str
    priced: str
    median_price: str
    versions: str
    download: str
    results_heading: str
    results_help: str
    several_versions: str
    with_warnings: str
    # Model page.
    model_heading: str
    model_intro: str
    version: str
    algorithm: str
    snapshot: str
    created: str
    test_scores: str
    measure: str
    mae_name: str
    rmse_name: str
    r2_name: str
    mape_name: str
    smape_name: str
    wmape_name: str
    median_ape_name: str
    within_5pct_name: str
    within_10pct_name: str
    within_15pct_name: str
    interval_coverage_name: str
    judged_heading: str
    judged_yes: str
    judged_no: str
    checks: str
    check: str
    passed: str
    failed: str
    found: str
    limit: str
    segments: str
    segment: str
    rows: str
    mae: str
    wmape: str
    champion_mae: str
    not_recorded: str
    not_available: str
    history_heading: str
    no_history: str
    serving_now: str
    on_trial: str
    when: str
    what: str
    who: str
    why: str
    action_canary: str
    action_promote: str
    action_abort: str
    action_rollback: str
    monitoring_heading: str
    no_monitoring: str
    drift: str
    performance: str
    all_well: str
    findings: str
    severity_warning: str
    severity_critical: str
    details: str
    trained_on: str
    minimum: str
    maximum: str
    origin: str
    # Fields of a block group.
    longitude: str
    latitude: str
    housing_median_age: str
    total_rooms: str
    total_bedrooms: str
    population: str
    households: str
    median_income: str
    ocean_proximity: str
    location: str
    # Categories.
    near_bay: str
    near_ocean: str
    less_than_an_hour: str
    inland: str
    island: str
    # Problems of a value.
    too_small: str
    too_large: str
    no_number: str
    no_value: str
    no_category: str
    not_accepted: str
    below_training: str
    above_training: str
    unseen_category: str


ENGLISH: Final = Texts(
    language_label="Language",
    title="California home prices",
    price_page="Price",
    batch_page="Many at once",
    model_page="Model",
    ready="Ready · version {version}",
    no_model="The service runs, and has no model yet",
    unavailable="The service does not answer",
    unknown="Asking the service …",
    waiting="This page goes on by itself as soon as the service answers. What you entered stays.",
    version_changed="The model changed from version {before} to version {after}; prices were asked for "
    "again.",
    back_again="The service answers again.",
    api_refused="The service refused: {message}",
    map_label="Map of California. Arrow keys move the cross, Enter chooses the place.",
    map_role="map",
    map_help="Click a place on the map, or move the cross with the arrow keys and press Enter. "
    "The form takes what is typical there; change what you know better.",
    west="W",
    zoom_in="Zoom in",
    zoom_out="Zoom out",
    legend="Median price",
    known_prices="Each dot is the median of the block groups around it in the census of 1990.",
    price_heading="What is a home worth here?",
    price_intro="Choose a place, describe its block group, and see the price, how sure it is, and what "
    "makes it.",
    examples="Three places to begin with",
    example_berkeley="Berkeley hills",
    example_fresno="Fresno",
    example_malibu="Malibu",
    form_heading="The block group",
    unknown_bedrooms="unknown: estimated",
    ratios="What follows from it",
    rooms_per_household="Rooms per household",
    bedrooms_per_room="Bedrooms per room",
    population_per_household="People per household",
    bedrooms_per_household="Bedrooms per household",
    not_known="not known",
    mend_form="There is a price as soon as the values marked below are mended.",
    estimate="Median home price",
    interval="With a probability of {level} between {lower} and {upper}",
    interval_label="The price of {price} within its interval from {lower} to {upper}",
    answered_by="Answered by model version {version}. US dollars of 1990.",
    dollars="US dollars of 1990",
    warning_intro="The model saw nothing like this in training; trust the price less:",
    drivers_heading="What makes this price",
    drivers_intro="Homes in general: {base}. From there, each input moves the price; together they make "
    "{price}.",
    drivers_label="Contributions to the price of {price}, in dollars, the largest first",
    no_explanation="This model version cannot explain its prices.",
    raises="raises the price",
    lowers="lowers the price",
    contribution="Dollars",
    feature="Input",
    others="everything else",
    nearby_heading="Next to its neighbours",
    nearby_summary="The {count} nearest block groups have a median price of {median}, as published; "
    "this price is {comparison}.",
    nearby_label="Prices of the {count} nearest block groups, and this price of {price}",
    no_neighbours="This model version knows no block groups to compare with.",
    above="{percent} above it",
    below="{percent} below it",
    same="the same",
    this_place="this price",
    as_table="The same as a table",
    distance="Distance (km)",
    batch_heading="Price many block groups at once",
    batch_intro="Upload a CSV with one block group a row, in the columns of the template. More columns "
    "are kept "
    "as they are; bedrooms may be empty.",
    template="Download the template",
    upload="CSV file, up to 20 MB",
    unreadable="This file cannot be read as CSV ({problem}): save it as CSV in UTF-8 with a header line, and "
    "upload it again.",
    empty_file="This file has no rows: add one block group a row below the header, and upload it again.",
    missing_columns="These columns are missing: {columns}. Name them as the template does, and upload the "
    "file again.",
    too_many_rows="This file has {rows} rows, and {limit} can be priced here: split it, or use the API.",
    rows_good="Rows that can be priced: {count}.",
    rows_bad="Rows that cannot be priced: {count}. They stay in the download, with what is wrong with them.",
    rows_bad_listed="The first {count} of them:",
    row="Row",
    column="Column",
    value="Value",
    problem="What is wrong",
    price_rows="Price the rows ({count})",
    pricing="{done} of {count} rows priced",
    stopped="The service stopped answering: {done} of {count} rows are priced and kept. Press the button "
    "to go on "
    "with the rest.",
    priced="Rows priced",
    median_price="Median price",
    versions="Model version",
    download="Download the results as CSV",
    results_heading="Results",
    results_help="The first {count} of {rows} rows; the download has all of them.",
    several_versions="The model changed meanwhile: versions {versions} answered. The download says which "
    "answered "
    "which row.",
    with_warnings="Rows unlike anything the model was trained on: {count}. The column warnings of the "
    "download says why.",
    model_heading="The model that answers",
    model_intro="What the service says of it.",
    version="Version",
    algorithm="Algorithm",
    snapshot="Training snapshot",
    created="Exported",
    test_scores="Scores on the test set",
    measure="Measure",
    mae_name="Mean absolute error ($)",
    rmse_name="Root mean square error ($)",
    r2_name="R²",
    mape_name="Mean error in % of the price",
    smape_name="Symmetric mean error (%)",
    wmape_name="All errors in % of all prices",
    median_ape_name="Median error in % of the price",
    within_5pct_name="Prices within 5 % (%)",
    within_10pct_name="Prices within 10 % (%)",
    within_15pct_name="Prices within 15 % (%)",
    interval_coverage_name="Prices within their interval (share)",
    judged_heading="How it was judged",
    judged_yes="Version {version} met every condition on {rows} held-out rows: {reason}.",
    judged_no="Version {version} did not meet every condition on {rows} held-out rows: {reason}.",
    checks="Conditions",
    check="Condition",
    passed="met",
    failed="not met",
    found="Found",
    limit="Limit",
    segments="Errors by part of the test set",
    segment="Part",
    rows="Rows",
    mae="Mean error ($)",
    wmape="Error (%)",
    champion_mae="Version before ($)",
    not_recorded="Nothing is on record of how this version was judged.",
    not_available="This cannot be said right now: {problem}",
    history_heading="What was released when",
    no_history="Nothing was released yet: the service answers with the newest version it found.",
    serving_now="Version {version} is released.",
    on_trial="Version {version} is on trial with {percent} of the requests.",
    when="When",
    what="What",
    who="Who",
    why="Why",
    action_canary="version {version} on trial",
    action_promote="version {version} released",
    action_abort="trial of version {version} ended",
    action_rollback="back to version {version}",
    monitoring_heading="Does it still fit what is asked?",
    no_monitoring="No report yet: there is one for each day on which prices were asked for.",
    drift="Drift",
    performance="Errors",
    all_well="{day}: nothing found in {rows} predictions.",
    findings="{day}: findings in {rows} predictions: {count}.",
    severity_warning="warning",
    severity_critical="critical",
    details="More about this model",
    trained_on="What it was trained on",
    minimum="Lowest",
    maximum="Highest",
    origin="Loaded from",
    longitude="Longitude (°)",
    latitude="Latitude (°)",
    housing_median_age="Median age of the homes (years)",
    total_rooms="Rooms in all homes",
    total_bedrooms="Bedrooms in all homes",
    population="People",
    households="Households",
    median_income="Median income ($10,000 a year)",
    ocean_proximity="Where it lies",
    location="Place",
    near_bay="near the bay",
    near_ocean="near the ocean",
    less_than_an_hour="within an hour of the ocean",
    inland="inland",
    island="on an island",
    too_small="at least {limit}",
    too_large="at most {limit}",
    no_number="must be a number, such as 12.5",
    no_value="must not be empty",
    no_category="must be one of {limit}",
    not_accepted="is not accepted: {limit}",
    below_training="{field}: below everything in training",
    above_training="{field}: above everything in training",
    unseen_category="{field}: no such place in training",
)

SPANISH: Final = Texts(
    language_label="Idioma",
    title="Precios de viviendas en California",
    price_page="Precio",
    batch_page="Varios a la vez",
    model_page="Modelo",
    ready="Listo · versión {version}",
    no_model="El servicio funciona, pero aún no tiene modelo",
    unavailable="El servicio no responde",
    unknown="Consultando el servicio …",
    waiting="Esta página continúa sola en cuanto el servicio responda. Lo que ha escrito se conserva.",
    version_changed="El modelo cambió de la versión {before} a la versión {after}; los precios se han "
    "vuelto a pedir.",
    back_again="El servicio responde de nuevo.",
    api_refused="El servicio lo rechazó: {message}",
    map_label="Mapa de California. Las flechas mueven la cruz, Intro elige el lugar.",
    map_role="mapa",
    map_help="Haga clic en un lugar del mapa, o mueva la cruz con las flechas y pulse Intro. "
    "El formulario toma lo habitual allí; cambie lo que conozca mejor.",
    west="O",
    zoom_in="Acercar",
    zoom_out="Alejar",
    legend="Precio mediano",
    known_prices="Cada punto es la mediana de los grupos de manzanas cercanos en el censo de 1990.",
    price_heading="¿Cuánto vale aquí una vivienda?",
    price_intro="Elija un lugar, describa su grupo de manzanas y vea el precio, su certeza y de qué se "
    "compone.",
    examples="Tres lugares para empezar",
    example_berkeley="Colinas de Berkeley",
    example_fresno="Fresno",
    example_malibu="Malibú",
    form_heading="El grupo de manzanas",
    unknown_bedrooms="desconocido: se estima",
    ratios="Lo que se deduce",
    rooms_per_household="Habitaciones por hogar",
    bedrooms_per_room="Dormitorios por habitación",
    population_per_household="Personas por hogar",
    bedrooms_per_household="Dormitorios por hogar",
    not_known="desconocido",
    mend_form="Habrá un precio en cuanto se corrijan los valores señalados abajo.",
    estimate="Precio mediano de la vivienda",
    interval="Con una probabilidad de {level}, entre {lower} y {upper}",
    interval_label="El precio de {price} dentro de su intervalo de {lower} a {upper}",
    answered_by="Responde la versión {version} del modelo. Dólares de EE. UU. de 1990.",
    dollars="Dólares de EE. UU. de 1990",
    warning_intro="El modelo no vio nada parecido al entrenarse; confíe menos en el precio:",
    drivers_heading="De qué se compone este precio",
    drivers_intro="Viviendas en general: {base}. Desde ahí, cada dato mueve el precio; juntos suman {price}.",
    drivers_label="Contribuciones al precio de {price}, en dólares, la mayor primero",
    no_explanation="Esta versión del modelo no puede explicar sus precios.",
    raises="sube el precio",
    lowers="baja el precio",
    contribution="Dólares",
    feature="Dato",
    others="todo lo demás",
    nearby_heading="Junto a sus vecinos",
    nearby_summary="Los {count} grupos de manzanas más cercanos tienen un precio mediano publicado de "
    "{median}; "
    "este precio está {comparison}.",
    nearby_label="Precios de los {count} grupos de manzanas más cercanos, y este precio de {price}",
    no_neighbours="Esta versión del modelo no conoce grupos de manzanas con los que comparar.",
    above="{percent} por encima",
    below="{percent} por debajo",
    same="al mismo nivel",
    this_place="este precio",
    as_table="Lo mismo como tabla",
    distance="Distancia (km)",
    batch_heading="Precios de muchos grupos de manzanas a la vez",
    batch_intro="Suba un CSV con un grupo de manzanas por fila y las columnas de la plantilla. Las demás "
    "columnas se "
    "conservan; los dormitorios pueden faltar.",
    template="Descargar la plantilla",
    upload="Archivo CSV, hasta 20 MB",
    unreadable="Este archivo no se puede leer como CSV ({problem}): guárdelo como CSV en UTF-8 con una "
    "línea de "
    "encabezado y súbalo de nuevo.",
    empty_file="Este archivo no tiene filas: añada un grupo de manzanas por fila bajo el encabezado y "
    "súbalo de nuevo.",
    missing_columns="Faltan estas columnas: {columns}. Nómbrelas como en la plantilla y suba el archivo "
    "de nuevo.",
    too_many_rows="Este archivo tiene {rows} filas y aquí se admiten {limit}: divídalo o use la API.",
    rows_good="Filas que pueden recibir un precio: {count}.",
    rows_bad="Filas que no pueden recibir un precio: {count}. Siguen en la descarga, con lo que les pasa.",
    rows_bad_listed="Las primeras {count}:",
    row="Fila",
    column="Columna",
    value="Valor",
    problem="Qué le pasa",
    price_rows="Pedir los precios ({count})",
    pricing="{done} de {count} filas con precio",
    stopped="El servicio dejó de responder: {done} de {count} filas tienen precio y se conservan. Pulse "
    "el botón para "
    "seguir con el resto.",
    priced="Filas con precio",
    median_price="Precio mediano",
    versions="Versión del modelo",
    download="Descargar los resultados como CSV",
    results_heading="Resultados",
    results_help="Las primeras {count} de {rows} filas; la descarga las tiene todas.",
    several_versions="El modelo cambió entretanto: respondieron las versiones {versions}. La descarga "
    "dice cuál en "
    "cada fila.",
    with_warnings="Filas que no se parecen a nada de lo que vio el modelo al entrenarse: {count}. La columna "
    "warnings de la descarga dice por qué.",
    model_heading="El modelo que responde",
    model_intro="Lo que el servicio dice de él.",
    version="Versión",
    algorithm="Algoritmo",
    snapshot="Datos de",
    created="Exportado",
    test_scores="Resultados en los datos de prueba",
    measure="Medida",
    mae_name="Error absoluto medio ($)",
    rmse_name="Raíz del error cuadrático medio ($)",
    r2_name="R²",
    mape_name="Error medio en % del precio",
    smape_name="Error medio simétrico (%)",
    wmape_name="Todos los errores en % de todos los precios",
    median_ape_name="Error mediano en % del precio",
    within_5pct_name="Precios con menos del 5 % de error (%)",
    within_10pct_name="Precios con menos del 10 % de error (%)",
    within_15pct_name="Precios con menos del 15 % de error (%)",
    interval_coverage_name="Precios dentro de su intervalo (proporción)",
    judged_heading="Cómo fue evaluado",
    judged_yes="La versión {version} cumplió todas las condiciones en {rows} filas reservadas: {reason}.",
    judged_no="La versión {version} no cumplió todas las condiciones en {rows} filas reservadas: {reason}.",
    checks="Condiciones",
    check="Condición",
    passed="cumplida",
    failed="no cumplida",
    found="Valor",
    limit="Límite",
    segments="Errores por parte de los datos de prueba",
    segment="Parte",
    rows="Filas",
    mae="Error medio ($)",
    wmape="Error (%)",
    champion_mae="Versión anterior ($)",
    not_recorded="No consta cómo fue evaluada esta versión.",
    not_available="Ahora mismo no se puede decir: {problem}",
    history_heading="Qué se publicó y cuándo",
    no_history="Aún no se ha publicado nada: el servicio responde con la versión más reciente que encontró.",
    serving_now="La versión {version} está publicada.",
    on_trial="La versión {version} está a prueba con el {percent} de las peticiones.",
    when="Cuándo",
    what="Qué",
    who="Quién",
    why="Por qué",
    action_canary="versión {version} a prueba",
    action_promote="versión {version} publicada",
    action_abort="fin de la prueba de la versión {version}",
    action_rollback="vuelta a la versión {version}",
    monitoring_heading="¿Sigue siendo adecuado para lo que se pide?",
    no_monitoring="Aún no hay informe: hay uno por cada día en que se pidieron precios.",
    drift="Deriva",
    performance="Errores",
    all_well="{day}: nada que señalar en {rows} predicciones.",
    findings="{day}: hallazgos en {rows} predicciones: {count}.",
    severity_warning="aviso",
    severity_critical="grave",
    details="Más sobre este modelo",
    trained_on="Con qué fue entrenado",
    minimum="Mínimo",
    maximum="Máximo",
    origin="Cargado de",
    longitude="Longitud (°)",
    latitude="Latitud (°)",
    housing_median_age="Antigüedad mediana (años)",
    total_rooms="Habitaciones de todas las viviendas",
    total_bedrooms="Dormitorios de todas las viviendas",
    population="Personas",
    households="Hogares",
    median_income="Ingreso mediano ($10,000 al año)",
    ocean_proximity="Dónde está",
    location="Lugar",
    near_bay="cerca de la bahía",
    near_ocean="cerca del océano",
    less_than_an_hour="a menos de una hora del océano",
    inland="en el interior",
    island="en una isla",
    too_small="como mínimo {limit}",
    too_large="como máximo {limit}",
    no_number="debe ser un número, como 12.5",
    no_value="no puede estar vacío",
    no_category="debe ser uno de {limit}",
    not_accepted="no se acepta: {limit}",
    below_training="{field}: por debajo de todo lo visto al entrenar",
    above_training="{field}: por encima de todo lo visto al entrenar",
    unseen_category="{field}: ningún lugar así al entrenar",
)

LANGUAGES: Final[dict[Language, tuple[str, Texts]]] = {
    "en": ("English", ENGLISH),
    "es": ("Español", SPANISH),
}
